"""Opens the models that draw, a folder's or the registry's, and follows the registry's alias."""

import contextlib
import dataclasses
import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
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
from models.labels import Rows, split_names
from models.registry.model_uri import (
    CHAMPION_URI,
    ModelNotFoundError,
    ModelUri,
    Registry,
    RegistryUnavailableError,
    ResolvedModel,
    format_time,
    is_model_uri,
    parse_model_uri,
)
from models.registry.program import (
    PROGRAM,
    ProgramGenerator,
    is_registered,
    open_files,
    registered_files,
)
from models.sampling.directions import Directions, read_directions
from models.sampling.draw import asked_labels, draw, drawing_facts, grid, png_bytes
from models.training.checkpoint import TENSORS
from models.training.distributed import gpu_count

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
        directions: what its sliders move, None if none were found.

    """

    generator: GeneratorNet
    typical: Rows
    name: str
    version: str
    key: str
    digest: str
    trained: str
    limits: str = ""
    directions: Directions | None = None

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
        made = _nameless(name, generator, typical, trained=_file_time(files / PROGRAM))
        return _with_directions(made, str(files))
    generator = load_generator(folder, device=place)
    typical = read_typical_rows(folder, generator.spec.labels)
    made = _nameless(name, generator, typical, trained=_made(folder))
    return _with_directions(made, find_generator(folder).own_url)


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
            opened = _nameless(found.title, generator, typical, trained=found.made)
            opened = _with_directions(opened, str(files))
        except OmokageError as error:
            message = str(error).replace(f"{fetched}/", "").replace(str(fetched), "its folder")
            message = message.replace(
                "artifacts/", ""
            )  # how MLflow lays files out means nothing here
            raise RegistryError(f"{found.title} cannot be opened: {message}") from error
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


def _with_directions(model: OpenModel, folder: str) -> OpenModel:
    """Returns the model with the directions that lie in a folder beside its weights."""
    found = read_directions(folder, model.spec, digest=model.digest)
    return dataclasses.replace(model, directions=found)


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
    if (store := place.store.folder) is None:
        return ""
    return _file_time(store.local(place.path(TENSORS if place.is_checkpoint else WEIGHTS)))


def _file_time(path: Path) -> str:
    return format_time(path.stat().st_mtime)


RETRY_S = 10.0  # after a registry that did not answer or a version that cannot be opened


class ModelSource:
    """The current model, and those of links, for any number of threads.

    A draw takes a model once and keeps it until it ends: what moves meanwhile, moves beside it.
    """

    def __init__(
        self,
        uri: str = CHAMPION_URI,
        *,
        tracking_uri: str,
        device: str = "cpu",
        look_every_s: float = 1.0,
        keep: int = 3,
    ) -> None:
        """Asks for nothing yet.

        uri: a model URI, or a folder that `open_folder` takes. look_every_s: how often at most the
        registry is queried where an alias points. keep: models in memory, the current one among
        them. Raises UsageError for a URI of another kind or a keep below 1.
        """
        if keep < 1:
            raise UsageError(
                f"keep is {keep}; at least the current model is kept: 1 or more wanted"
            )
        self._text = uri
        self._uri = parse_model_uri(uri) if is_model_uri(uri) else None  # None: a folder
        self._registry = Registry(tracking_uri)
        self._device = device
        self._look_every_s = look_every_s
        self._keep = keep

        self._state = threading.Lock()  # of the fields below; nobody waits for anything in it
        self._model: OpenModel | None = None
        self._kept: OrderedDict[str, OpenModel] = OrderedDict()  # the latest used last
        self._look_at = 0.0  # time.monotonic() from when on the registry is queried again
        self._fault = ""  # why there is no model yet
        self._notice = ""
        self._silent_until = 0.0  # no link's model is fetched before
        self._looking = threading.Lock()  # held by the one thread that asks for the current model
        self._fetching = threading.Lock()  # held by the one thread that fetches a link's model

    def current(self) -> OpenModel:
        """Returns the model to draw with now.

        An alias is looked up at most every look_every_s; the thread that finds it moved loads the
        new version and returns that, while the others go on with the old one until it is there. If
        the registry is out of reach, or the new version is damaged, the old one stays, and
        `notice` says so. Without any model raises RegistryError (TrainingError, StoreError or
        UsageError of a folder), within about 5 seconds even if the server hangs.
        """
        if self._model is None:
            return self._first()
        if self._is_due() and self._looking.acquire(blocking=False):
            try:
                self._look_again()
            finally:
                self._looking.release()
        return self._model

    def of(self, key: str) -> OpenModel:
        """Returns the model that a link or a PNG names by its key.

        The current one, a kept one, or a version of the same registered model, fetched now. Raises
        UsageError if it cannot be had from here; RegistryError if the registry does not answer or
        gives damaged files.
        """
        kept = self._kept_one(key)
        if kept is not None:
            return kept
        if key.startswith(DIGEST):
            return self._nameless(key)
        uri = self._version(key)
        with self._fetching:
            return self._kept_one(key) or self._fetched(key, uri)

    def keys(self) -> list[str]:
        """Returns the keys that `of` takes, the latest version first; raises as `current` does."""
        if self._uri is None or not self._uri.name:
            return [self.current().key]
        name = self._uri.name
        return [f"{name}/{version}" for version in self._registry.versions(name)]

    def notice(self) -> str:
        """Returns a sentence on what keeps the current model from being the latest, or ""."""
        return self._notice

    def _first(self) -> OpenModel:
        """Returns the first model; all threads wait for it, since there is none to go on with."""
        with self._looking:
            if self._model is not None:
                return self._model
            if self._fault and not self._is_due():  # whoever waited need not ask once more
                raise RegistryError(self._fault)
            try:
                return self._look()
            except RegistryError as error:
                self._fault = str(error)
                raise
            finally:
                self._look_at = time.monotonic() + self._look_every_s

    def _is_due(self) -> bool:
        return time.monotonic() >= self._look_at and (self._model is None or self._may_move())

    def _may_move(self) -> bool:
        return self._uri is not None and self._uri.alias != ""

    def _look_again(self) -> None:
        wait_s, going_on = RETRY_S, f"Drawing goes on with {self._title()}."
        try:
            self._look()
        except ModelNotFoundError:
            alias = self._uri.alias if self._uri else ""
            self._notice = f"No version is the {alias} any more. {going_on}"
            wait_s = self._look_every_s
        except OmokageError as error:
            self._notice = f"{error} {going_on}"
        else:
            self._notice = ""
            wait_s = self._look_every_s
        finally:
            self._look_at = time.monotonic() + wait_s

    def _look(self) -> OpenModel:
        """Finds out which model is the current one, opens it if it is new, and puts it in place."""
        if self._uri is None:
            return self._place(open_folder(self._text, device=self._device))
        found = self._registry.find(self._uri)
        model = self._kept_one(found.key) if found.key else None
        return self._place(model or open_found(self._registry, found, device=self._device))

    def _place(self, model: OpenModel) -> OpenModel:
        with self._state:
            self._model = model
            self._remember(model)
        return model

    def _kept_one(self, key: str) -> OpenModel | None:
        with self._state:
            if key not in self._kept:
                return None
            self._kept.move_to_end(key)
            return self._kept[key]

    def _remember(self, model: OpenModel) -> None:
        """Keeps a model as the latest used and lets the others go that are too many."""
        self._kept[model.key] = model
        self._kept.move_to_end(model.key)
        for key in [key for key, one in self._kept.items() if one is not self._model]:
            if len(self._kept) <= self._keep:
                break
            del self._kept[key]

    def _nameless(self, key: str) -> OpenModel:
        """Returns the current model if its weights are what the key names, else explains."""
        model = self.current()
        if f"{DIGEST}{model.digest}".startswith(key) and len(key) >= len(model.key):
            return model
        raise UsageError(
            f"This link was made by a generator of a folder ({key}), and no registry keeps those. "
            f"Here is {model.name} ({model.key}); start the page with that generator's folder."
        )

    def _version(self, key: str) -> ModelUri:
        """Returns the URI of a key's version; raises UsageError if it is none of this model's."""
        name, _, number = key.rpartition("/")
        if not (name and number.isascii() and number.isdecimal() and not number.startswith("0")):
            raise UsageError(
                f'The link names the model "{key[:80]}"; a version such as avatar-generator/3, or '
                f"{DIGEST} with 16 hex digits, wanted."
            )
        if self._uri is None or name != self._uri.name:
            raise UsageError(
                f"This link was made by version {number} of {name}; this page draws with "
                f"{self._title()} alone."
            )
        return ModelUri(f"models:/{name}/{number}", name=name, version=number)

    def _fetched(self, key: str, uri: ModelUri) -> OpenModel:
        if time.monotonic() < self._silent_until:  # whoever waited need not wait once more
            raise RegistryUnavailableError(self._registry.silence)
        try:
            found = self._registry.find(uri)
        except ModelNotFoundError as error:
            raise UsageError(
                f"This link was made by version {uri.version} of {uri.name}, which "
                f"{self._registry.place} does not have."
            ) from error
        except RegistryUnavailableError:
            self._silent_until = time.monotonic() + self._look_every_s
            raise
        model = open_found(self._registry, found, device=self._device)
        with self._state:
            self._remember(model)
        return model

    def _title(self) -> str:
        if self._model is not None:
            return self._model.name
        return self._uri.name or self._text if self._uri else "the generator of a folder"


@contextlib.contextmanager
def champion_folder(tracking_uri: str) -> Iterator[str]:
    """Yields a temporary folder with the champion's weights, which `load_generator` takes.

    Raises ModelNotFoundError if there is no champion; RegistryError if the registry does not
    answer, or the version is from before models carried their weights.
    """
    registry = Registry(tracking_uri)
    found = registry.find(parse_model_uri(CHAMPION_URI))
    with tempfile.TemporaryDirectory(prefix="omokage-champion-") as temporary:
        files = registered_files(registry.fetch(found, Path(temporary)))
        if not (files / WEIGHTS).is_file():
            raise RegistryError(
                f"{found.title} was registered without its weights, so only a plain grid can be "
                "drawn with it (`omokage sample` without a command). Name the folder that it was "
                "registered from with --generator: generators/… under its home."
            )
        yield str(files)


def champion_grid(
    tracking_uri: str, labels: str, *, n: int, seed: int, psi: float, columns: int
) -> bytes:
    """Draws `n` pictures with the champion, in rows of `columns`; returns a PNG.

    labels: "blonde_hair, blue_eyes", which each picture then has alone; "" as they come. The PNG
    says what it was made from. Raises UsageError for unknown labels; as `champion_folder` besides.
    """
    model = open_registered(CHAMPION_URI, tracking_uri=tracking_uri)
    seeds = range(seed, seed + n)
    rows = asked_labels(split_names(labels), seeds, known=model.labels, typical=model.typical)
    sheet = grid(draw(model.generator, rows, seeds, psi=psi), min(columns, n))
    facts = drawing_facts(
        model.generator,
        tool="grid",
        seeds=seeds,
        labels=[labels],
        psi=psi,
        noise="const",
        model=f"{CHAMPION_URI}, {model.name}",
    )
    return png_bytes(sheet, facts)
