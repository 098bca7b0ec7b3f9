"""Where the weights of a registered version are: its training's folder, or MLflow's own copy."""

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from assets.resources import TrackingResource
from dataset.store import Store

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

FOLDER = "omokage.folder"  # a version's tag: the training's folder under the home


@dataclass(frozen=True)
class VersionFiles:
    """Files that can be drawn with and measured; `folder` is under the home or absolute."""

    folder: str
    is_training: bool  # the training itself; else a copy that the registry gave


def training_folder(store: Store, version: "ModelVersion") -> str | None:
    """Returns the folder of a version's training, None if it is not under this home."""
    folder: str = version.tags.get(FOLDER, "")
    return folder if folder and store.exists(f"{folder}/generator") else None


@contextlib.contextmanager
def version_files(
    store: Store, tracking: TrackingResource, version: "ModelVersion"
) -> Iterator[VersionFiles]:
    """Yields a version's files: of its training, or of the model as registered, for the block.

    Another home, or another machine, may have trained the version; what the registry keeps draws
    the same. Raises RegistryError if MLflow does not give it.
    """
    folder = training_folder(store, version)
    if folder is not None:
        yield VersionFiles(folder, is_training=True)
        return
    with tempfile.TemporaryDirectory(prefix="omokage-model-") as place:
        uri = f"models:/{tracking.model}/{version.version}"
        yield VersionFiles(str(tracking.fetch_model(uri, Path(place))), is_training=False)
