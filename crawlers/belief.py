"""When a wrong answer is believed: once the board has given the very same several times."""

from collections import Counter

# A fault of a minute (a page of the host's caretaker, another picture out of a broken cache) often
# comes twice; the same three times, with waits between, is what the board has.
ALIKE = 3
LOOKS = 5  # in one crawl


class Belief:
    """The answers about one picture in this crawl, each told by what is the same in it."""

    def __init__(self) -> None:
        self.looks = 0
        self._seen: Counter[str] = Counter()

    def believes(self, answer: str | None) -> bool:
        """Tells whether this answer has come often enough; None is never believed."""
        self.looks += 1
        if answer is None:
            return False
        self._seen[answer] += 1
        return self._seen[answer] >= ALIKE

    @property
    def is_spent(self) -> bool:
        """Whether it has been asked often enough for this crawl."""
        return self.looks >= LOOKS
