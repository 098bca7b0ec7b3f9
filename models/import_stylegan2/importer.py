"""Turns a file of public StyleGAN2 weights into a generator folder that all our tools read."""

import contextlib
import dataclasses
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

from dataset.errors import StoreError, TrainingError, UsageError
from dataset.store import Store, digest_of, sync_folder
from models.families import family_of
from models.families.base import GeneratorNet, GeneratorSpec
from models.import_stylegan2.nvidia import read_nvidia
from models.import_stylegan2.rosinality import read_rosinality
from models.import_stylegan2.tensor_table import Found, reshaped
from models.import_stylegan2.torch_file import is_torch_file, read_torch_file
from models.io.generators import SPEC, TRAIN, TYPICAL, WEIGHTS, load_generator
from models.io.safe_io import shown, without_memory
from models.sampling.draw import latents

MAX_FILE_BYTES = 4 * 2**30  # a 1024 px checkpoint with both optimisers has 1.4 GB
CENTRE_LATENTS = 4096  # for the mean w, where the file has none
CENTRE_CHUNK = 256

_PICKLE_MARK = b"\x80"  # a pickle of protocol 2 or later


@dataclasses.dataclass(frozen=True)
class ImportedWeights:
    """What an import made.

    Attributes:
        folder: the generator folder.
        layout: whose form the file had, "rosinality" or "nvidia".
        spec: the generator.
        parameters: how many numbers its weights are.
        sha256: of the file.
        notes: what a user should know of it, as sentences.

    """

    folder: str
    layout: str
    spec: GeneratorSpec
    parameters: int
    sha256: str
    notes: tuple[str, ...]


def import_weights(file: str | os.PathLike[str], out: str | os.PathLike[str]) -> ImportedWeights:
    """Reads a `.pt` of rosinality's port or a `.pkl` of NVIDIA's and writes the folder `out`.

    Nothing of the file is run. The folder appears whole or not at all. Raises UsageError if the
    file is not there or `out` is not empty, TrainingError naming what the file holds if that is no
    such generator, StoreError if `out` cannot be written.
    """
    source, target = Path(file), Path(out).absolute()
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UsageError(f"{out} is there already; name a new or empty folder with --out")
    content = _content(source)
    found = read_weights(content, where=str(source))
    network = _network(found, where=str(source))
    sha256 = hashlib.sha256(content).hexdigest()
    facts = _facts(source, sha256, len(content), found=found)
    with _appearing(target) as folder:
        _write(folder, network, facts)
    parameters = sum(parameter.numel() for parameter in network.parameters())
    return ImportedWeights(
        str(out), found.layout, found.spec, parameters, sha256=sha256, notes=found.notes
    )


def read_weights(content: bytes, *, where: str) -> Found:
    """Understands the bytes of a weights file by what they begin with.

    Raises TrainingError naming `where` and what was found instead.
    """
    if is_torch_file(content):
        held = read_torch_file(content, where=where)
        return read_rosinality(held, where=where, size_bytes=len(content))
    if content.startswith(_PICKLE_MARK):
        return read_nvidia(content, where=where)
    begins = shown(content[:12].decode("latin1"))
    raise TrainingError(
        f'{where} begins with "{begins}" and is neither a .pt of torch.save nor a .pkl; '
        "weights of rosinality's or NVIDIA's PyTorch StyleGAN2 wanted"
    )


def _content(file: Path) -> bytes:
    if not file.is_file():
        raise UsageError(f"{file} is not a file; a .pt or .pkl with weights wanted")
    size = file.stat().st_size
    if not 0 < size <= MAX_FILE_BYTES:
        raise UsageError(f"{file} has {size:,} bytes; 1 to {MAX_FILE_BYTES:,} wanted")
    try:
        return file.read_bytes()
    except OSError as error:
        raise UsageError(f"{file} cannot be read: {error.strerror}") from error


def _network(found: Found, *, where: str) -> GeneratorNet:
    """Builds our generator with the tensors of a file, and its mean w if the file had none."""
    with without_memory():  # none is taken before the tensors are known to fit
        network = family_of(found.spec.family).generator(found.spec)
    wanted = network.state_dict()
    tensors = reshaped(found.tensors, wanted)
    if not found.centre_known:
        tensors["w_avg"] = torch.zeros(found.spec.w_dim)
    network.load_state_dict(tensors, assign=True)
    network.eval().requires_grad_(False)
    if not found.centre_known:
        tensors["w_avg"].copy_(_centre(network))
        if not bool(torch.isfinite(tensors["w_avg"]).all()):
            raise TrainingError(f"{where}: its mapping gives numbers that are not finite")
    return network


@torch.no_grad()
def _centre(network: GeneratorNet) -> Tensor:
    """Returns the mean w [W] of 4096 latents, seeds 0 and on."""
    spec = network.spec
    total = torch.zeros(spec.w_dim, dtype=torch.float64)
    for start in range(0, CENTRE_LATENTS, CENTRE_CHUNK):
        z = latents(range(start, start + CENTRE_CHUNK), spec.z_dim, spec.z_dist)
        w = network.map(z, torch.zeros(len(z), len(spec.labels)))
        assert w is not None  # the family has W
        total += w[:, 0].double().sum(dim=0)
    return (total / CENTRE_LATENTS).float()


def _facts(source: Path, sha256: str, size_bytes: int, *, found: Found) -> dict[str, Any]:
    """Returns train.json: where the weights come from. Of their training nothing is known."""
    imported = {"layout": found.layout, "sha256": sha256}
    centre = "of the file" if found.centre_known else f"mean of {CENTRE_LATENTS} mapped latents"
    return {
        "imported": {
            **imported,
            "file": source.name,
            "size_bytes": size_bytes,
            "w_avg": centre,
            "notes": list(found.notes),
        },
        "config_digest": digest_of({"imported": imported}),  # what an evaluation knows it by
        "family": found.spec.family,
    }


def _write(folder: Path, network: GeneratorNet, facts: dict[str, Any]) -> None:
    store = Store(folder)
    tensors = {name: tensor.contiguous() for name, tensor in network.state_dict().items()}
    store.write_bytes(WEIGHTS, safetensors.torch.save(tensors))
    store.write_json(SPEC, network.spec.to_json())
    store.write_json(TYPICAL, [[label] for label in network.spec.labels] or [[]])
    store.write_json(TRAIN, facts)
    load_generator(str(folder))  # whatever it raises, it raises before anything is there


@contextlib.contextmanager
def _appearing(target: Path) -> Iterator[Path]:
    """Yields a folder that becomes `target` only when the block ends without an error."""
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        temporary = Path(tempfile.mkdtemp(prefix=".tmp-", dir=target.parent))
    except OSError as error:
        raise StoreError(f"{target} cannot be made: {error.strerror}") from error
    try:
        yield temporary
        try:
            temporary.chmod(0o755)
            sync_folder(temporary)
            temporary.replace(target)  # over an empty folder at most
            sync_folder(target.parent)
        except OSError as error:
            raise StoreError(f"{target} cannot be made: {error.strerror}") from error
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
