"""Opens the models that are drawn with: a folder's generator, or a version of the registry's."""

import dataclasses
import tempfile
from pathlib import Path

import torch

from dataset.errors import OmokageError, RegistryError, UsageError
from models.families.base import GeneratorNet, GeneratorSpec
from models.io.generators import (
    CHECKPOINTS,
    GENERATOR,
    WEIGHTS,
    find_generator,
    generator_digest,
    load_generator,
)
from models.io.generators import typical_rows as read_typical_rows
from models.labels import Rows
from models.registry.export import PROGRAM
from models.registry.load import ProgramGenerator, is_registered, open_files, registered_files
from models.registry.model_uri import Registry, ResolvedModel, format_time, parse_model_uri
from models.training.checkpoint import TENSORS
from models.training.devices import gpu_count

DIGEST = "sha256:"  # begins the key of a model that is no version of a registered one
DIGEST_DIGITS = 16


@dataclasses.dataclass(frozen=True, eq=False)
class OpenModel:
    """A generator that is ready to draw, and all that a page, a link or a PNG says of it.

    Attributes:
        generator: in eval mode, without gradients, on its device.
        typical: real label rows [M,L] of 0 and 1, for drawing labels as they come.
        name: for people: "avatar-generator version 3", or the folder's own name.
        version: "3", or "" of what is no version.
        key: what links and PNGs name: "avatar-generator/3", or "sha256:" and the first 16 digits
            of the digest.
        digest: sha256 over the generator's spec and weights, 64 hex digits.
        trained: when it was made, such as "2026-11-21 20:15 UTC", "" if nobody knows.
        limits: a sentence on why it can do less than its family, "" if it does not.

    """

    generator: GeneratorNet
    typical: Rows
    name: str
    version: str
    key: str
    digest: str
    trained: str
    limits: str = ""

    @property
    def spec(self) -> GeneratorSpec:
        """What the generator is and can do."""
        return self.generator.spec

    @property
    def labels(self) -> tuple[str, ...]:
        """The labels that it knows, in its order."""
        return self.generator.spec.labels


def open_folder(folder: str, *, device: str = "cpu") -> OpenModel:
    """Opens a generator's, checkpoint's or training's folder, or a registered model's files.

    device: cpu, cuda, cuda:N, or auto. Raises UsageError if the folder is none of these or the
    device is not there; TrainingError, StoreError or RegistryError naming a file at fault.
    """
    place = usable_device(device)
    name = _folder_name(folder)
    if "://" not in folder and is_registered(Path(folder)):
        files = registered_files(Path(folder))
        generator = open_files(files, device=place)
        typical = read_typical_rows(str(files), generator.spec.labels)
        return _nameless(name, generator, typical, trained=_file_time(files / PROGRAM))
    generator = load_generator(folder, device=place)
    typical = read_typical_rows(folder, generator.spec.labels)
    return _nameless(name, generator, typical, trained=_made(folder))


def open_registered(uri: str, *, tracking_uri: str, device: str = "cpu") -> OpenModel:
    """Opens models:/NAME@ALIAS, models:/NAME/3 or runs:/ID/generator; no file of it is kept.

    Raises UsageError for another kind of URI or a device that is not there; RegistryError in plain
    words if the registry does not answer, has no such model, or gives damaged files.
    """
    registry = Registry(tracking_uri)
    return open_found(registry, registry.find(parse_model_uri(uri)), device=device)


def open_found(registry: Registry, found: ResolvedModel, *, device: str = "cpu") -> OpenModel:
    """Fetches and opens a model that the registry found; raises as `open_registered` does."""
    place = usable_device(device)
    with tempfile.TemporaryDirectory(prefix="omokage-model-") as temporary:
        fetched = registry.fetch(found, Path(temporary))
        try:
            files = registered_files(fetched)
            generator = open_files(files, device=place)
            typical = read_typical_rows(str(files), generator.spec.labels)
        except OmokageError as error:
            told = str(error).replace(f"{fetched}/", "").replace(str(fetched), "its folder")
            told = told.replace("artifacts/", "")  # how MLflow lays files out means nothing here
            raise RegistryError(f"{found.title} cannot be opened: {told}") from error
    opened = _nameless(found.title, generator, typical, trained=found.made)
    return dataclasses.replace(opened, version=found.version, key=found.key or opened.key)


def usable_device(name: str) -> torch.device:
    """Returns the device that `name` means, "auto" the GPU if there is one; raises UsageError."""
    wanted = ("cuda" if gpu_count() else "cpu") if name == "auto" else name
    try:
        return torch.zeros(1, device=wanted).device
    except (RuntimeError, AssertionError) as error:
        raise UsageError(f'device is "{name}": {str(error).splitlines()[0]}') from error


def _nameless(name: str, generator: GeneratorNet, typical: Rows, *, trained: str) -> OpenModel:
    """Returns a model that its weights alone name."""
    digest = generator_digest(generator)
    key = f"{DIGEST}{digest[:DIGEST_DIGITS]}"
    limits = _limits(name, generator)
    return OpenModel(generator, typical, name, "", key, digest, trained, limits)


def _limits(name: str, generator: GeneratorNet) -> str:
    if isinstance(generator, ProgramGenerator) and generator.can_less:
        return f"{name} was registered without its weights, so it draws from seeds and labels alone"
    return ""


def _folder_name(folder: str) -> str:
    """Returns what people call a folder: of a training's parts with the training's name."""
    parts = [part for part in folder.split("/") if part not in ("", ".")]
    if len(parts) > 1 and parts[-1] == GENERATOR:
        return parts[-2]
    if len(parts) > 2 and parts[-2] == CHECKPOINTS:
        return f"{parts[-3]} at {parts[-1]}"
    return parts[-1] if parts else folder


def _made(folder: str) -> str:
    place = find_generator(folder)
    if not place.store.is_local:
        return ""
    return _file_time(place.store.local(place.path(TENSORS if place.is_checkpoint else WEIGHTS)))


def _file_time(path: Path) -> str:
    return format_time(path.stat().st_mtime)
