"""Text of a file of unknown origin, made fit for an error: printable and short."""

MAX_TEXT = 80


def shown(text: str) -> str:
    """Returns a text from a file as an error may show it: printable and short."""
    printable = "".join(one if one.isprintable() else "?" for one in text[: MAX_TEXT + 1])
    return printable if len(printable) <= MAX_TEXT else printable[:MAX_TEXT] + "…"
