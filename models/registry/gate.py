"""The gate: whether a measured generator takes the champion's place, and why; pure functions."""

import math
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from dataset.errors import RegistryError

# Standard errors. Of a difference they count the noise of the shared reals twice: against 179 reals
# they are 3 times its spread over equal generators, of which 0 of 120 won, and against 1,000 reals
# 1.3 times, 2 of 120 (Gaussian features, 2 sets of 400 or 500 fakes).
NOISE = 2.0
# Two-sided 5 % points of Student's t for two means over so many sets each. Where sigma is known
# from 2 sets, 2 standard errors would refuse an equal generator 1 time in 11.
STUDENT_T = {2: 4.30, 3: 2.78, 4: 2.45, 5: 2.31, 6: 2.23, 7: 2.18, 8: 2.14, 9: 2.12}
STUDENT_T_OF_MORE = 2.10
MIN_REPEATS = 2  # how far the numbers of a single set vary is unknown

# Beyond these a generator repeats training faces; the asset check looks at the same two.
MIN_MEMORY_RATIO = 0.5
MAX_COPIED_FRAC = 0.2
# Below it a generator repeats one composition; the asset check looks at it too. 400 fakes of one
# composition with hair and eyes as requested: 0.64 by efficientnet_lite2, 0.76 by
# efficientnet_lite0; one real face in 120 random colours 0.78 by either. A trained generator of
# two or three compositions: 0.81 and 0.86; sets of 400 real faces: 0.98 to 1.02.
MIN_SPREAD = 0.78
# Share of faces among the reals' from which on that counts: the generators of one composition have
# 0.82 to 0.94. A training of seconds draws blurs, of spread 0.02 to 0.75 and precision 0.00, far
# from all reals: it repeats nothing that is near, and may be the first for want of another.
MIN_PRECISION = 0.05
# Above it spread counts as this: grain and noise are as varied as real faces (1.00 and more), and
# a generator of better faces has a little less.
ENOUGH_SPREAD = 0.9

OLD_METRIC = "fd_efficientnet_lite0"  # of evaluations that do not name theirs
# To suggest, the best first; all of models.metrics.extractors, which would import torch here.
EXTRACTORS = ("efficientnet_lite2", "inception", "efficientnet_lite0")


@dataclass(frozen=True)
class Measure:
    """A number by which versions are compared."""

    field: str  # of MeasuredVersion
    name: str = ""
    tolerance: float = 0.0  # what a version may fall behind by where its noise is less
    sign: float = -1.0  # -1: less is better


KERNEL, AT128 = Measure("kernel"), Measure("at128")
LABEL_AP = Measure("label_ap", "label AP", tolerance=0.01, sign=1.0)
RECALL = Measure("recall", "recall", tolerance=0.02, sign=1.0)
SPREAD = Measure("spread", "spread", tolerance=0.02, sign=1.0)
MEMORY_RATIO = Measure("memory_ratio", "memory ratio", tolerance=0.1, sign=1.0)
COPIED_FRAC = Measure("copied_frac", "share of copied faces", tolerance=0.02)
HELD = (LABEL_AP, RECALL, SPREAD, MEMORY_RATIO, COPIED_FRAC)
COUNTS_UP_TO = {
    SPREAD: ENOUGH_SPREAD,
    # Above 1 the pictures are only further from all faces, which the distance judges already:
    # a better generator comes nearer to them, and that is no memorising.
    MEMORY_RATIO: 1.0,
}


@dataclass(frozen=True)
class MeasuredVersion:
    """A registered version with its numbers by one protocol on one manifest; None: not measured."""

    version: str
    manifest: str
    protocol: str
    kernel_metric: str  # name of the kernel distance
    kernel: float  # unbiased MMD² at the generator's own side; lower is better, around 0 at best
    kernel_se: float | None  # its standard error, over fakes and reals
    resolution_px: int
    repeats: int  # sets of fakes, of which each number is the mean
    at128: float | None = None  # the same at 128 px, for generators of different sides
    at128_se: float | None = None
    label_ap: float | None = None  # 0 to 1; None for a family without labels
    label_ap_sigma: float | None = None  # standard deviation over the sets
    recall: float | None = None  # 0 to 1
    recall_sigma: float | None = None
    spread: float | None = None  # 0 = one picture again and again, 1 = as varied as real faces
    spread_sigma: float | None = None
    precision: float | None = None  # 0 to 1
    memory_ratio: float | None = None  # 0 = copies of training faces, 1 = as far as unseen ones
    copied_frac: float | None = None  # share of fakes nearer to a training face than unseen ones
    extractor: str = ""
    trained_on_features: tuple[str, ...] = ()  # extractors whose features its training saw

    @classmethod
    def of(cls, version: str, evaluation: Mapping[str, Any]) -> "MeasuredVersion":
        """Reads an evaluation.json; raises RegistryError for one of an older protocol."""
        if not is_decidable(evaluation):
            raise RegistryError(
                f"version {version} was evaluated by an older protocol, without a standard error "
                "of the kernel distance at the generator's own side; materialise evaluation "
                f"again, or run `omokage promote {version}`"
            )
        kernel = evaluation["kernel_metric"]
        value = _number(evaluation[kernel])
        return cls(
            version=version,
            manifest=evaluation["manifest_digest"],
            protocol=evaluation["protocol_digest"],
            kernel_metric=kernel,
            kernel=math.nan if value is None else value,
            kernel_se=_number(evaluation[f"{kernel}_se"]),
            resolution_px=int(evaluation["resolution_px"]),
            repeats=int(evaluation["repeats"]),
            at128=_number(evaluation.get(f"{kernel}_at128")),
            at128_se=_number(evaluation.get(f"{kernel}_at128_se")),
            extractor=evaluation["protocol"]["extractor"],
            trained_on_features=tuple(evaluation.get("trained_on_features", ())),
            **{name: _number(evaluation.get(name)) for name in _SAME_NAMES},
        )

    def to_json(self) -> dict[str, Any]:
        """Returns the numbers by their names in an evaluation.json, as `of` reads them."""
        kernel = self.kernel_metric
        return {
            "manifest_digest": self.manifest,
            "protocol_digest": self.protocol,
            "protocol": {"extractor": self.extractor},
            "trained_on_features": list(self.trained_on_features),
            "kernel_metric": kernel,
            kernel: self.kernel,
            f"{kernel}_se": self.kernel_se,
            f"{kernel}_at128": self.at128,
            f"{kernel}_at128_se": self.at128_se,
            "resolution_px": self.resolution_px,
            "repeats": self.repeats,
            **{name: getattr(self, name) for name in _SAME_NAMES},
        }

    @property
    def terms(self) -> tuple[str, str]:
        """Manifest and protocol; only versions on equal terms are compared."""
        return self.manifest, self.protocol

    def value(self, measure: Measure) -> float | None:
        """Returns the number that is compared."""
        value: float | None = getattr(self, measure.field)
        return None if value is None else min(value, COUNTS_UP_TO.get(measure, math.inf))

    def mark(self, measure: Measure) -> float | None:
        """Returns the number that others are held against as long as this one was champion."""
        value = self.value(measure)
        return None if measure is SPREAD and value is not None and value < MIN_SPREAD else value

    def standard_error(self, measure: Measure) -> float:
        """Returns that of the number; nan: unknown, 0: none is measured (memorisation)."""
        if measure in (KERNEL, AT128):
            error: float | None = getattr(self, f"{measure.field}_se")
        elif measure in (LABEL_AP, RECALL, SPREAD):
            sigma: float | None = getattr(self, f"{measure.field}_sigma")
            error = None if sigma is None else sigma / math.sqrt(self.repeats)
        else:
            error = 0.0
        return math.nan if error is None else error

    def name_of(self, measure: Measure) -> str:
        """Returns what a person calls the number; the kernel distance has its side with it."""
        if measure is AT128:
            return f"{self.kernel_metric}_at128"
        return measure.name or f"{self.kernel_metric} at {self.resolution_px} px"


_SAME_NAMES = (
    "label_ap", "label_ap_sigma", "recall", "recall_sigma", "spread", "spread_sigma",
    "precision", "memory_ratio", "copied_frac",
)  # fmt: skip


def is_decidable(evaluation: Mapping[str, Any]) -> bool:
    """Tells whether an evaluation has what the gate reads; those of older protocols do not."""
    needed = (f"{evaluation.get('kernel_metric')}_se", "resolution_px", "repeats")
    return all(name in evaluation for name in needed)


@dataclass(frozen=True)
class Decision:
    """What the gate says, and each of its reasons in words, with the numbers."""

    moves: bool
    reasons: tuple[str, ...]

    @property
    def reason(self) -> str:
        """All reasons in one text."""
        return "; ".join(self.reasons)


def decide(
    candidate: MeasuredVersion,
    incumbent: MeasuredVersion | None,
    former: Iterable[MeasuredVersion] = (),
) -> Decision:
    """Returns whether `candidate` becomes champion, and why.

    It must beat the incumbent in the kernel distance k, and fall behind no champion f (the
    incumbent and all of `former`) in anything by more than one tolerance:

        noise(a, b) = t sqrt(se(a)² + se(b)²)
        k(incumbent) - k(candidate) > noise
        k(candidate) - k(f) <= noise
        label AP, recall, spread, memory ratio, share of copies: worse by <= max(noise, tolerance)

    k is taken at the generators' own side if that is equal, else at 128 px. se is the standard
    error: of k as measured, with t = 2; of label AP, recall and spread sigma / sqrt(sets), with
    Student's t for so few sets; of memorisation 0.

    Refused are also a version that repeats training faces or one composition, numbers of unknown
    standard error, no spread, and an extractor whose features a training saw. All must be measured
    by the same protocol on the same manifest; raises RegistryError otherwise, since such numbers
    cannot be compared. A champion of no spread, or of less than the least, sets no mark in it.
    """
    if incumbent is not None and candidate.version == incumbent.version:
        return Decision(False, (f"version {candidate.version} is the champion already",))
    unknown, repeated = tuple(_undecidable(candidate, incumbent)), tuple(_repeating(candidate))
    if incumbent is None:
        first = f"version {candidate.version} is the first: there was no champion"
        return Decision(not unknown and not repeated, (first, *unknown, *repeated))
    champions = {one.version: one for one in (*former, incumbent)}
    for one in champions.values():
        if one.terms != candidate.terms:
            raise RegistryError(
                f"version {candidate.version} was measured by {candidate.extractor} on manifest "
                f"{candidate.manifest[:12]} by protocol {candidate.protocol[:12]}, version "
                f"{one.version} by {one.extractor} on {one.manifest[:12]} by {one.protocol[:12]}: "
                "equal ones are needed; name one --extractor for both"
            )
    if unknown:
        return Decision(False, (*unknown, *repeated))
    kernel = _kernel_for(candidate, incumbent)
    new, old = candidate.value(kernel), incumbent.value(kernel)
    assert new is not None
    assert old is not None
    needed = _noise(kernel, candidate, incumbent)
    numbers = (
        f"version {candidate.version} has {candidate.name_of(kernel)} {new:.4g}, champion version "
        f"{incumbent.version} has {old:.4g}: gain {old - new:.4g}, more than {needed:.4g} needed"
    )
    compared = [one for measure in HELD for one in _hardest(measure, candidate, champions.values())]
    del champions[incumbent.version]  # whose kernel distance is to be beaten, not held
    for measure in (KERNEL, AT128):
        compared += _hardest(measure, candidate, champions.values())
    faults = (*(one.in_words for one in compared if one.is_worse), *repeated)
    if old - new > needed and not faults:
        return Decision(True, (numbers, *(one.in_words for one in compared)))
    return Decision(False, (numbers, *faults))


@dataclass(frozen=True)
class Mark:
    """The best that any champion had in a measure: what the next one is held against."""

    name: str
    value: float
    standard_error: float  # 0 where none is measured
    version: str


def high_water_marks(champions: Collection[MeasuredVersion]) -> list[Mark]:
    """Returns the best number of each measure; the kernel distance has one for each side.

    champions: all measured on the same terms. The distance at 128 px counts between generators of
    different sides, so it is there if the champions have several.
    """
    found: dict[str, tuple[float, Mark]] = {}
    several = len({one.resolution_px for one in champions}) > 1
    for measure in (KERNEL, *((AT128,) if several else ()), *HELD):
        for one in champions:
            value, name = one.mark(measure), one.name_of(measure)
            if value is not None and (name not in found or measure.sign * value > found[name][0]):
                mark = Mark(name, value, one.standard_error(measure), one.version)
                found[name] = measure.sign * value, mark
    return [mark for _, mark in found.values()]


def _undecidable(candidate: MeasuredVersion, incumbent: MeasuredVersion | None) -> Iterator[str]:
    """Yields why the numbers decide nothing, and the way out."""
    sides = (candidate,) if incumbent is None else (candidate, incumbent)
    command = f"omokage promote {candidate.version}"
    if any(one.repeats < MIN_REPEATS for one in sides):
        yield (
            "it was evaluated on one set of fakes, whose noise is unknown: set repeats of the "
            f"evaluation to {MIN_REPEATS} or more, or run `{command} --repeats 5`"
        )
    else:
        kernel = _kernel_for(*sides) if len(sides) == 2 else KERNEL
        for one in sides:
            for measure in (kernel, LABEL_AP, RECALL, SPREAD):
                value, error = one.value(measure), one.standard_error(measure)
                if measure is kernel and value is None:
                    value = math.nan
                if value is not None and not math.isfinite(value + error):
                    yield (
                        f"version {one.version} has {one.name_of(measure)} {value:.4g} with "
                        f"standard error {error:.4g}, finite numbers needed"
                    )
    if candidate.spread is None:
        yield (
            f"version {candidate.version} was evaluated before the spread of its faces was "
            f"measured: evaluate again, by materialising evaluation or by `{command}`"
        )
    seen = {name for one in sides for name in one.trained_on_features}
    ways = " or ".join(f"--extractor {name}" for name in EXTRACTORS if name not in seen)
    for one in sides:
        if one.extractor in one.trained_on_features:
            yield (
                f"version {one.version} was trained on features of {one.extractor}, which "
                "therefore decides nothing: set another extractor of the evaluation, or run "
                f"`{command}` with {ways}"
            )


def _repeating(candidate: MeasuredVersion) -> Iterator[str]:
    """Yields why a generator is refused whoever stands against it: it repeats faces."""
    ratio, copied = candidate.memory_ratio, candidate.copied_frac
    if ratio is not None and ratio < MIN_MEMORY_RATIO:
        yield (
            f"it memorises: its faces are {ratio:.2f} times as far from training faces as unseen "
            f"pictures are, {MIN_MEMORY_RATIO:.2f} or more needed"
        )
    if copied is not None and copied > MAX_COPIED_FRAC:
        yield (
            f"it memorises: {copied:.1%} of its faces are nearly training faces, "
            f"at most {MAX_COPIED_FRAC:.0%} allowed"
        )
    spread, precision = candidate.spread, candidate.precision
    is_near = precision is None or precision >= MIN_PRECISION
    if is_near and spread is not None and spread < MIN_SPREAD:
        yield (
            f"it repeats one composition: its faces differ {spread:.2f} times as much as "
            f"real faces do (spread), {MIN_SPREAD:.2f} or more needed"
        )


@dataclass(frozen=True)
class _Compared:
    """The candidate's number beside that of a champion."""

    name: str
    new: float | None
    old: float
    version: str  # the champion's
    loss: float  # how much worse the new one is
    allowed: float  # one tolerance

    @property
    def is_worse(self) -> bool:
        return not self.loss <= self.allowed

    @property
    def in_words(self) -> str:
        if self.new is None:
            return f"{self.name} was not measured, version {self.version} has {self.old:.4g}"
        numbers = f"{self.new:.4g} against {self.old:.4g} of version {self.version}"
        if not self.is_worse:
            return f"{self.name} {numbers}"
        return (
            f"{self.name} is worse: {numbers}, {self.loss:.4g} worse, at most {self.allowed:.4g} "
            "allowed"
        )


def _hardest(
    measure: Measure, candidate: MeasuredVersion, champions: Iterable[MeasuredVersion]
) -> list[_Compared]:
    """Returns the comparison with the champion that is hardest to hold up to; [] if none has it."""
    new, found = candidate.value(measure), []
    for one in champions:
        old = one.mark(measure)
        if old is None or (measure in (KERNEL, AT128) and measure != _kernel_for(candidate, one)):
            continue
        loss = math.inf if new is None else measure.sign * (old - new)
        allowed = max(_noise(measure, candidate, one), measure.tolerance)
        found.append(_Compared(candidate.name_of(measure), new, old, one.version, loss, allowed))
    return sorted(found, key=lambda one: one.loss - one.allowed)[-1:]


def _noise(measure: Measure, one: MeasuredVersion, other: MeasuredVersion) -> float:
    t = STUDENT_T.get(min(one.repeats, other.repeats), STUDENT_T_OF_MORE)
    errors = math.hypot(one.standard_error(measure), other.standard_error(measure))
    return (NOISE if measure in (KERNEL, AT128) else t) * errors


def _kernel_for(one: MeasuredVersion, other: MeasuredVersion) -> Measure:
    return KERNEL if one.resolution_px == other.resolution_px else AT128


def _number(value: Any) -> float | None:
    return None if value is None else float(value)
