"""Tensors of a network: read from safetensors, compared with what is wanted, named by a digest."""

import hashlib
import json

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from dataset.errors import TrainingError
from dataset.store import Store
from models.families.base import GeneratorNet
from models.io.safe_io import shown

# What safetensors raises, and torch where a header asks for a tensor that it cannot have.
_FOREIGN = (safetensors.SafetensorError, KeyError, ValueError, TypeError, RuntimeError)


def read_tensors(store: Store, path: str) -> dict[str, Tensor]:
    """Reads a safetensors file; raises TrainingError naming it if it is none or is cut short."""
    return parse_tensors(store.read_bytes(path), where=store.url(path))


def parse_tensors(content: bytes, *, where: str) -> dict[str, Tensor]:
    """Reads a safetensors file's bytes; raises TrainingError naming `where` if they are none."""
    try:
        return safetensors.torch.load(content)
    except _FOREIGN as error:
        raise TrainingError(
            f"{where} is no whole safetensors file ({len(content):,} bytes): {shown(str(error))}"
        ) from error


def tensor_faults(found: dict[str, Tensor], wanted: dict[str, Tensor]) -> list[str]:
    """Returns a sentence for every tensor that is missing, unknown, misshapen or not finite."""
    faults = [f"{shown(name)} is unknown" for name in sorted(found) if name not in wanted]
    for name, want in wanted.items():
        have = found.get(name)
        if have is None:
            faults.append(f"{name} is missing")
        elif have.shape != want.shape or have.dtype != want.dtype:
            faults.append(f"{name} is {_kind(have)}, {_kind(want)} wanted")
        elif not bool(torch.isfinite(have).all()):
            faults.append(f"{name} holds numbers that are not finite")
    return faults


def generator_digest(generator: GeneratorNet) -> str:
    """Returns the sha256 over a generator's spec and weights, whatever file they came from."""
    spec = json.dumps(generator.spec.to_json(), sort_keys=True)
    sha256 = hashlib.sha256(spec.encode())
    for name, tensor in sorted(generator.state_dict().items()):
        sha256.update(f"\0{name} {_kind(tensor)}\0".encode())
        sha256.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return sha256.hexdigest()


def _kind(tensor: Tensor) -> str:
    return f"{str(tensor.dtype).removeprefix('torch.')} {list(tensor.shape)}"
