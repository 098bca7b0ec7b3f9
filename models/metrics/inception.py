"""The standard Inception network of FID: its published weights, and torch-fidelity's layers.

Everybody's FID is over the 2048 features that these weights give to uint8 pictures which were
resized as TensorFlow 1 did it; other weights or another resizer give other numbers.
"""

import io
import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from dataset.errors import ConfigError, TrainingError
from models.metrics.download import PinnedFile, fetched, require_pinned

WEIGHTS = PinnedFile(
    url="https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
    "weights-inception-2015-12-05-6726825d.pth",
    sha256="6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    size_bytes=95_628_359,
    hosts=frozenset(
        {"github.com", "objects.githubusercontent.com", "release-assets.githubusercontent.com"}
    ),
)
INPUT_PX = 299
FEATURES = 2048
RESIZER = "TensorFlow 1 bilinear to 299 px, on uint8"
INSTALL = "pip install --constraint constraints.txt '.[fid]'"


def inception(
    device: str | torch.device = "cpu", *, weights: str = "", cache: Path | None = None
) -> nn.Module:
    """Returns the network: uint8 pictures [N,3,H,W] of any size -> a tuple of features [N,2048].

    weights: path of the weights file; empty: it is taken from `cache`, or fetched into it.
    Raises TrainingError if torch-fidelity cannot be imported, if the file is not the standard one
    or cannot be fetched; ConfigError if neither path nor cache is given.
    """
    network_class = _network_class()  # first, as it costs nothing
    state = _state(weights_path(weights, cache))
    # The class unpickles whatever file it is given, so it gets the tensors alone, written anew.
    plain = io.BytesIO()
    torch.save(state, plain)
    plain.seek(0)
    network: nn.Module = network_class(
        "inception-v3-compat", [str(FEATURES)], feature_extractor_weights_path=plain
    )
    return network.to(device)


def weights_path(weights: str, cache: Path | None) -> Path:
    """Returns where the standard weights lie, checked by size and sha256; may fetch them."""
    if weights:
        path = Path(weights)
        require_pinned(path, WEIGHTS)
        return path
    if cache is None:
        raise ConfigError(
            "the extractor inception needs its weights: give the path of "
            f"{WEIGHTS.name}, or a cache folder to fetch it into"
        )
    return fetched(WEIGHTS, cache)


def _state(path: Path) -> dict[str, Tensor]:
    """Reads the tensors without running anything that the file may hold."""
    try:
        state = torch.load(path, weights_only=True, map_location="cpu")
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise TrainingError(f"{path} is no file of tensors: {error}") from error
    if not isinstance(state, dict) or not all(isinstance(t, Tensor) for t in state.values()):
        raise TrainingError(f"{path} holds something else than named tensors")
    return state


def _network_class() -> Any:
    try:
        # The whole package: after a failure, its module of the network alone would import
        import torch_fidelity
    except ImportError as error:
        raise TrainingError(
            f"the extractor inception needs the package torch-fidelity: {error}. {INSTALL}"
        ) from error
    # torchvision's operators are not built for this torch; imported again, it is half imported
    except (RuntimeError, AttributeError) as error:
        raise TrainingError(
            f"the extractor inception cannot import torchvision: {error}. It has to be built for "
            "the torch beside it: install torchvision from where torch came from "
            f"(torch here is {torch.__version__}), in the version of constraints.txt. {INSTALL}"
        ) from error
    return torch_fidelity.FeatureExtractorInceptionV3
