"""The gate: whether a measured generator takes the champion's place, and why; a pure function."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

MIN_GAIN_FRAC = 0.02
SIGMAS = 3.0

# What a generator may fall behind in, besides its own noise, and still count as no worse.
LABEL_AP_TOLERANCE = 0.01
RECALL_TOLERANCE = 0.02
MEMORY_RATIO_TOLERANCE = 0.1
COPIED_FRAC_TOLERANCE = 0.02

# Beyond these a generator repeats training faces; the asset check looks at the same two.
MIN_MEMORY_RATIO = 0.5
MAX_COPIED_FRAC = 0.2

OLD_METRIC = "fd_efficientnet_lite0"  # of evaluations that do not name theirs


@dataclass(frozen=True)
class MeasuredVersion:
    """A registered version with its numbers by one protocol on one manifest; None: not measured."""

    version: str
    metric: str  # name of the distance
    distance: float  # Fréchet distance, lower is better
    sigma: float  # standard deviation of that number over sampling seeds
    manifest: str
    protocol: str
    label_ap: float | None = None  # 0 to 1; None for a family without labels
    label_ap_sigma: float = 0.0
    recall: float | None = None  # 0 to 1
    recall_sigma: float = 0.0
    memory_ratio: float | None = None  # 0 = copies of training faces, 1 = as far as unseen ones
    copied_frac: float | None = None  # share of fakes nearer to a training face than unseen ones

    @classmethod
    def of(cls, version: str, evaluation: Mapping[str, Any]) -> "MeasuredVersion":
        """Reads the numbers of an evaluation.json; raises KeyError if it has no distance."""
        metric = evaluation.get("metric", OLD_METRIC)
        return cls(
            version=version,
            metric=metric,
            distance=float(evaluation[metric]),
            sigma=float(evaluation["sigma"]),
            manifest=evaluation["manifest_digest"],
            protocol=evaluation["protocol_digest"],
            label_ap=_number(evaluation.get("label_ap")),
            label_ap_sigma=_number(evaluation.get("label_ap_sigma")) or 0.0,
            recall=_number(evaluation.get("recall")),
            recall_sigma=_number(evaluation.get("recall_sigma")) or 0.0,
            memory_ratio=_number(evaluation.get("memory_ratio")),
            copied_frac=_number(evaluation.get("copied_frac")),
        )


@dataclass(frozen=True)
class Decision:
    """What the gate says, and each of its reasons in words, with the numbers."""

    moves: bool
    reasons: tuple[str, ...]

    @property
    def reason(self) -> str:
        """All reasons in one text."""
        return "; ".join(self.reasons)


def decide(candidate: MeasuredVersion, incumbent: MeasuredVersion | None) -> Decision:
    """Returns whether `candidate` becomes champion, and why.

    It must win by more than max(3 σ, 2 %) in the distance, be no worse in label AP, recall and
    memorisation, each within its noise and a tolerance, and not repeat training faces. Both must be
    measured by the same protocol on the same manifest; raises ValueError otherwise, since such
    numbers cannot be compared.
    """
    if incumbent is None:
        faults = tuple(_memorised(candidate))
        if not math.isfinite(candidate.distance):
            faults = (f"its distance is {candidate.distance}", *faults)
        first = f"version {candidate.version} is the first: there was no champion"
        return Decision(not faults, (first, *faults))
    if candidate.version == incumbent.version:
        return Decision(False, (f"version {candidate.version} is the champion already",))
    if _terms(candidate) != _terms(incumbent):
        raise ValueError("measured on different manifests or by different protocols")
    gain = incumbent.distance - candidate.distance
    sigma = max(candidate.sigma, incumbent.sigma)
    needed = max(SIGMAS * sigma, MIN_GAIN_FRAC * incumbent.distance)
    numbers = (
        f"version {candidate.version} has distance {candidate.distance:.2f}, champion version "
        f"{incumbent.version} has {incumbent.distance:.2f}: gain {gain:.2f}, "
        f"more than {needed:.2f} wanted"
    )
    # A distance that is no number is a loss too: no comparison with it holds.
    wins = gain > needed
    faults = (*_worse(candidate, incumbent), *_memorised(candidate))
    if wins and not faults:
        return Decision(True, (numbers, *_kept(candidate, incumbent)))
    return Decision(False, (numbers, *faults))


def _terms(measured: MeasuredVersion) -> tuple[str, str, str]:
    return measured.metric, measured.manifest, measured.protocol


def _memorised(candidate: MeasuredVersion) -> Iterator[str]:
    """Yields why a generator is refused whoever stands against it: it repeats training faces."""
    ratio, copied = candidate.memory_ratio, candidate.copied_frac
    if ratio is not None and ratio < MIN_MEMORY_RATIO:
        yield (
            f"it memorises: its faces are {ratio:.2f} times as far from training faces as unseen "
            f"pictures are, {MIN_MEMORY_RATIO:.2f} or more wanted"
        )
    if copied is not None and copied > MAX_COPIED_FRAC:
        yield (
            f"it memorises: {copied:.1%} of its faces are nearly training faces, "
            f"at most {MAX_COPIED_FRAC:.0%} wanted"
        )


def _worse(candidate: MeasuredVersion, incumbent: MeasuredVersion) -> Iterator[str]:
    """Yields in what the candidate falls behind by more than noise and tolerance."""
    for one in _compared(candidate, incumbent):
        if one.old is None:
            continue
        if one.new is None:
            yield f"{one.name} was not measured, the champion has {one.old:.3f}"
        elif one.loss > one.allowed:
            yield (
                f"{one.name} is worse: {one.new:.3f} against {one.old:.3f}, "
                f"{one.loss:.3f} worse, at most {one.allowed:.3f} allowed"
            )


def _kept(candidate: MeasuredVersion, incumbent: MeasuredVersion) -> Iterator[str]:
    """Yields the numbers in which the winner is no worse."""
    for one in _compared(candidate, incumbent):
        if one.new is not None and one.old is not None:
            yield f"{one.name} {one.new:.3f} against {one.old:.3f}"


@dataclass(frozen=True)
class _Compared:
    name: str
    new: float | None
    old: float | None
    allowed: float  # how much worse it may be
    sign: float = 1.0  # -1 where less is better

    @property
    def loss(self) -> float:
        """How much worse the new one is; only where both are numbers."""
        assert self.new is not None
        assert self.old is not None
        return self.sign * (self.old - self.new)


def _compared(candidate: MeasuredVersion, incumbent: MeasuredVersion) -> list[_Compared]:
    label_ap_sigma = max(candidate.label_ap_sigma, incumbent.label_ap_sigma)
    recall_sigma = max(candidate.recall_sigma, incumbent.recall_sigma)
    return [
        _Compared(
            "label AP",
            candidate.label_ap,
            incumbent.label_ap,
            allowed=max(SIGMAS * label_ap_sigma, LABEL_AP_TOLERANCE),
        ),
        _Compared(
            "recall",
            candidate.recall,
            incumbent.recall,
            allowed=max(SIGMAS * recall_sigma, RECALL_TOLERANCE),
        ),
        # Above 1 the pictures are only further from all faces, which the distance judges already:
        # a better generator comes nearer to them, and that is no memorising.
        _Compared(
            "memory ratio",
            _at_most_one(candidate.memory_ratio),
            _at_most_one(incumbent.memory_ratio),
            allowed=MEMORY_RATIO_TOLERANCE,
        ),
        _Compared(
            "share of copied faces",
            candidate.copied_frac,
            incumbent.copied_frac,
            allowed=COPIED_FRAC_TOLERANCE,
            sign=-1.0,
        ),
    ]


def _at_most_one(ratio: float | None) -> float | None:
    return None if ratio is None else min(ratio, 1.0)


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
