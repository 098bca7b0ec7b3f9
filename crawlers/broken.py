"""What a host sends that is no answer at all: asked again later, it may well send a right one."""

from scrapy.exceptions import IgnoreRequest


class BrokenAnswer(IgnoreRequest):
    """An answer came, but nothing can be made of it."""


class RedirectLoop(BrokenAnswer):
    """The host sends us on and on."""


class TooLarge(BrokenAnswer):
    """Undone from its encoding, the answer is larger than anything we take."""


class UnreadableEncoding(BrokenAnswer):
    """The answer is not encoded as it says."""
