"""The gate: whether a measured generator takes the champion's place, and why; a pure function."""

from dataclasses import dataclass

MIN_GAIN_FRAC = 0.02
SIGMAS = 3.0


@dataclass(frozen=True)
class Measured:
    """A registered version with its distance by one protocol on one manifest."""

    version: str
    distance: float  # Fréchet distance, lower is better
    sigma: float  # standard deviation of that number over sampling seeds
    manifest: str
    protocol: str


@dataclass(frozen=True)
class Decision:
    """What the gate says."""

    moves: bool
    reason: str


def decide(candidate: Measured, incumbent: Measured | None) -> Decision:
    """Returns whether `candidate` becomes champion: it must win by more than max(3 σ, 2 %).

    Both must be measured by the same protocol on the same manifest; raises ValueError otherwise,
    since such numbers cannot be compared.
    """
    if incumbent is None:
        return Decision(True, f"version {candidate.version} is the first: there was no champion")
    if candidate.version == incumbent.version:
        return Decision(False, f"version {candidate.version} is the champion already")
    if (candidate.manifest, candidate.protocol) != (incumbent.manifest, incumbent.protocol):
        raise ValueError("measured on different manifests or by different protocols")
    gain = incumbent.distance - candidate.distance
    sigma = max(candidate.sigma, incumbent.sigma)
    needed = max(SIGMAS * sigma, MIN_GAIN_FRAC * incumbent.distance)
    numbers = (
        f"version {candidate.version} has distance {candidate.distance:.2f}, champion version "
        f"{incumbent.version} has {incumbent.distance:.2f}: gain {gain:.2f}, "
        f"more than {needed:.2f} wanted"
    )
    return Decision(gain > needed, numbers)
