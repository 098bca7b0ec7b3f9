"""Hypothesis profiles: `dev` tries 20 examples per test, `ci` 50, or as many as the test says.

HYPOTHESIS_PROFILE chooses one; without it, `CI=true` means `ci` and anything else `dev`. No profile
has a deadline: a slow machine is not a fault.
"""

import os

from hypothesis import HealthCheck, settings

DEV_EXAMPLES = 20
PROFILE = os.environ.get("HYPOTHESIS_PROFILE") or (
    "ci" if os.environ.get("CI", "").lower() == "true" else "dev"
)


def load_profile() -> None:
    """Registers both profiles and loads the chosen one, before any test module is imported."""
    common = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.register_profile("dev", common, max_examples=DEV_EXAMPLES)
    settings.register_profile("ci", common, max_examples=50, print_blob=True)
    settings.load_profile(PROFILE)


def examples(count: int) -> int:
    """Returns `count`, for a test's own `max_examples`; the dev profile caps it."""
    return count if PROFILE == "ci" else min(count, DEV_EXAMPLES)
