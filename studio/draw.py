"""Draws with a registered model: labels by name, one seed a picture; knows nothing of pages."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image

from dataset.errors import RegistryError, UsageError

CHAMPION_URI = "models:/avatar-generator@champion"


def load_champion(tracking_uri: str, *, uri: str = CHAMPION_URI) -> Any:
    """Returns the loaded MLflow model; raises RegistryError if there is none yet."""
    import mlflow  # slow to import
    from mlflow.exceptions import MlflowException

    mlflow.set_tracking_uri(tracking_uri)
    mlflow.set_registry_uri(tracking_uri)
    try:
        return mlflow.pyfunc.load_model(uri)
    except MlflowException as error:
        raise RegistryError(
            f"{uri} cannot be loaded from {tracking_uri}: {error.message}. "
            "Has a generator been registered? `make demo` makes one."
        ) from error


def draw(
    model: Any, labels: Sequence[str], *, n: int, seed: int, psi: float
) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """Returns `n` pictures, uint8 [n,H,W,3], picture k from the latent of `seed + k`.

    labels: names from the model's own list; none: labels as they come in the training set.
    Raises UsageError, naming the label or parameter, for what the model refuses.
    """
    import pandas as pd
    from mlflow.exceptions import MlflowException

    asked = pd.DataFrame({"labels": [",".join(labels)]})
    try:
        pictures = model.predict(asked, params={"seed": seed, "psi": psi, "n": n})
    except (MlflowException, ValueError) as error:
        raise UsageError(str(error)) from error
    return np.asarray(pictures)


def draw_grid(
    tracking_uri: str,
    labels: Sequence[str],
    *,
    n: int,
    seed: int,
    psi: float,
    columns: int,
) -> tuple[Image.Image, dict[str, str]]:
    """Draws `n` pictures with the champion and lays them out in rows of `columns`.

    Returns the grid, and by name what it was made from, for the picture's own file.
    """
    from models.png import AS_THEY_COME, SOFTWARE, shortened
    from models.sampling import grid

    model = load_champion(tracking_uri)
    facts = {
        "Software": SOFTWARE,
        "omokage model": f"{CHAMPION_URI}, {model.metadata.model_uuid or 'no uuid'}",
        "omokage tool": "grid",
        "omokage seeds": shortened(range(seed, seed + n)),
        "omokage labels": ",".join(labels) or AS_THEY_COME,
        "omokage psi": f"{psi:g}",
    }
    return grid(draw(model, labels, n=n, seed=seed, psi=psi), min(columns, n)), facts
