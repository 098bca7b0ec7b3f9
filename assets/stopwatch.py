"""How long a stage took, for its materialisation."""

import time


class Stopwatch:
    """Runs from its making."""

    def __init__(self) -> None:
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        """Seconds since it was made, to a tenth."""
        return round(time.monotonic() - self._began, 1)
