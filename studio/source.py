"""Gives the model that is drawn with: follows the registry's alias, and keeps a few for links."""

import threading
import time
from collections import OrderedDict

from dataset.errors import OmokageError, RegistryError, UsageError
from models.registry.model_uri import (
    ModelNotFoundError,
    ModelUri,
    Registry,
    RegistryUnavailableError,
    is_model_uri,
    parse_model_uri,
)
from studio.default_model import CHAMPION_URI
from studio.opened import DIGEST, OpenModel, open_folder, open_found

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
        registry is asked where an alias points. keep: models in memory, the current one among
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
        self._look_at = 0.0  # time.monotonic() from when on the registry is asked again
        self._fault = ""  # why there is no model yet
        self._notice = ""
        self._silent_until = 0.0  # no link's model is asked for before
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
