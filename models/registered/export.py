"""Turns a generator folder into what the registered model carries: a program, a spec, weights."""

import json
from pathlib import Path

import safetensors.torch
import torch
from torch import Tensor, nn

from models.families.base import GeneratorNet
from models.io.generators import SPEC, TYPICAL, WEIGHTS, load_generator, typical_rows
from models.labels import names_of

PROGRAM = "generator.pt2"
# By their names in the model. `predict` needs these; the first versions carried nothing else.
NEEDED = {"program": PROGRAM, "spec": SPEC, "typical": TYPICAL}
# With the weights, whoever has this repository can do all that the family can: W, mixing, noise.
FILES = {**NEEDED, "weights": WEIGHTS}


class _Program(nn.Module):
    """The generator with psi as a tensor, so that the exported program takes any psi."""

    def __init__(self, generator: GeneratorNet) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, z: Tensor, labels: Tensor, psi: Tensor) -> Tensor:
        images: Tensor = self.generator(z, labels, psi=psi)
        return images


def export_generator(folder: str, out: Path) -> Path:
    """Writes the program and a whole generator's files into `out` and returns that.

    The files are `spec.json`, `typical_labels.json` and `generator.safetensors`, so that `out` is
    itself a folder that `load_generator` takes. The program takes z [N,Z], labels [N,L] and psi []
    and gives [N,3,R,R] in [-1,1], for any N.

    Raises TrainingError or StoreError if `folder` holds no whole generator.
    """
    generator = load_generator(folder)
    spec = generator.spec
    out.mkdir(parents=True, exist_ok=True)
    # A batch of 2 stands for any: torch specialises on a batch of 1.
    example = (torch.zeros(2, spec.z_dim), torch.zeros(2, len(spec.labels)), torch.tensor(1.0))
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(
        _Program(generator), example, dynamic_shapes=({0: batch}, {0: batch}, None)
    )
    torch.export.save(program, out / PROGRAM)
    (out / WEIGHTS).write_bytes(safetensors.torch.save(generator.state_dict()))
    (out / SPEC).write_text(json.dumps(spec.to_json(), indent=2, sort_keys=True) + "\n")
    typical = [names_of(row, spec.labels) for row in typical_rows(folder, spec.labels)]
    (out / TYPICAL).write_text(json.dumps(typical) + "\n")
    return out
