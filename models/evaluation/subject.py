"""Who is measured: a generator's folder of any kind, its network, and what names its weights."""

import dataclasses
import hashlib
from pathlib import Path

import torch

from dataset.errors import UsageError
from dataset.store import Store
from models.families.base import GeneratorNet
from models.io.generators import GENERATOR, TRAIN, WEIGHTS, Place, find_generator, load_generator
from models.registry.load import (
    ProgramGenerator,
    is_registered,
    program_sha256,
    registered_files,
)
from models.training.checkpoint import STATE, TENSORS

FOREIGN = "evaluations"  # under the home: of what lies outside, and of checkpoints, which go


@dataclasses.dataclass(frozen=True, eq=False)
class Subject:
    """A generator to be measured.

    Attributes:
        generator: in eval mode, on its device.
        sha256: of the file with its weights.
        config_digest: of the settings that it was trained with, "" where they are not known.
        folder: where its evaluations lie, under the home.
        files: its own folder under the home, "" for a checkpoint's, a model's, and those elsewhere.

    """

    generator: GeneratorNet
    sha256: str
    config_digest: str
    folder: str
    files: str = ""


def open_subject(store: Store, path: str, *, device: str | torch.device = "cpu") -> Subject:
    """Opens a training, a generator, a checkpoint, or a registered model's downloaded files.

    path: a folder under the home, or anywhere (absolute, or a URL). Raises UsageError if there is
    none of these, TrainingError or RegistryError for files that are damaged.
    """
    inside = _inside(store, path)
    url = store.url(inside) if inside is not None else path
    local = Path(url)
    if "://" not in url and local.is_dir() and is_registered(local):
        files = registered_files(local)
        sha256 = program_sha256(files)
        opened = ProgramGenerator(files, device=device)
        return Subject(opened, sha256, "", f"{FOREIGN}/{sha256[:12]}")
    if "://" not in url and not local.exists():
        raise UsageError(
            f"{path} is not there: a training's, generator's or checkpoint's folder is wanted, "
            "under the home or anywhere"
        )
    place = find_generator(url)
    network = load_generator(url, device=device)
    content = place.store.read_bytes(place.path(TENSORS if place.is_checkpoint else WEIGHTS))
    sha256 = hashlib.sha256(content).hexdigest()
    folder, own = f"{FOREIGN}/{sha256[:12]}", ""
    if inside is not None and not place.is_checkpoint:
        name = inside.removesuffix(f"/{GENERATOR}")
        folder = f"{name}/evaluation"
        own = f"{inside}/{place.folder}" if place.folder else inside
    return Subject(network, sha256, _config_digest(place), folder, own)


def _inside(store: Store, path: str) -> str | None:
    """Returns the path under the home, or None if it leads elsewhere."""
    if "://" not in path and not path.startswith("/"):
        return None if path.split("/")[0] in (".", "..") else path.rstrip("/")
    home = store.url("").rstrip("/") + "/"
    return path.removeprefix(home).rstrip("/") if path.startswith(home) else None


def _config_digest(place: Place) -> str:
    name = STATE if place.is_checkpoint else TRAIN
    if not place.store.exists(place.path(name)):
        return ""
    facts = place.store.read_json(place.path(name))
    return str(facts.get("config_digest", "")) if isinstance(facts, dict) else ""
