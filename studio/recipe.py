"""All that a picture of the studio is made from, and its one text: what links and PNGs hold."""

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any, Self
from urllib.parse import quote, unquote_plus

from dataset.errors import nearest
from studio.edits import DECIMALS, Edits, number_text, read_number
from studio.upscaling.waifu2x import DENOISE
from studio.upscaling.waifu2x import FACTORS as ENLARGEMENTS
from studio.validation import MAX_SEED, PSI_MAX, QUERY_MAX_CHARS, FaultsError, is_number, quoted

NOISES = ("const", "none", "random")  # those of models.sampling.draw, which needs torch
FACTORS = (1, *ENLARGEMENTS)
MAX_NAME = 200  # characters of a label or of a registered model's name
WHAT = "the settings of the picture"

_MODEL = re.compile(rf"[^/:]{{1,{MAX_NAME}}}/[1-9][0-9]{{0,9}}|sha256:[0-9a-f]{{16}}")
_WHOLE = re.compile(r"-?[0-9]{1,20}")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """All that a picture is made from: drawn, then upscaled, then edited.

    The same recipe gives the same bytes. psi is rounded to 4 decimals. Without upscaling there is
    no denoising, so denoise is then -1: each picture has one text, which reads back as the same
    recipe.

    Attributes:
        model: its key: "avatar-generator/3", or "sha256:" and 16 hex digits of its digest.
        seed: of the latent, 0 to 2^53 - 1.
        labels: names, in the model's order; () is none of them.
        psi: truncation, 0 (the mean face) to 2; 1 is full variety.
        noise: "const" (the generator's own), "none" or "random" (by the seed).
        upscale: 1, 2 or 4.
        denoise: -1 for none, 0 to 3.
        edits: of the upscaled picture.

    Raises UsageError with all faults for values that no recipe may have. Whether the model is
    there and knows the labels is for others to say.

    """

    model: str
    seed: int
    labels: tuple[str, ...] = ()
    psi: float = 1.0
    noise: str = "const"
    upscale: int = 1
    denoise: int = -1
    edits: Edits = dataclasses.field(default_factory=Edits)

    def __post_init__(self) -> None:
        faults = [fault for name in KEYS for fault in _faults(name, getattr(self, name))]
        if faults:
            raise FaultsError(WHAT, faults)
        object.__setattr__(self, "labels", tuple(self.labels))
        object.__setattr__(self, "psi", round(float(self.psi), DECIMALS) + 0.0)
        if self.upscale == 1:
            object.__setattr__(self, "denoise", -1)
        length = len(self.to_query())
        if length > QUERY_MAX_CHARS:
            raise FaultsError(WHAT, [_too_long(length)])

    def to_query(self) -> str:
        """Returns the one text of this recipe, as a link holds it behind its question mark.

        `model=avatar-generator%2F3&seed=17&labels=blonde_hair%2Cblue_eyes&psi=0.7`; what is as it
        is by default is left out.
        """
        texts = {
            "model": self.model,
            "seed": str(self.seed),
            "labels": ",".join(self.labels),
            "psi": "" if self.psi == 1 else number_text(self.psi),
            "noise": "" if self.noise == "const" else self.noise,
            "upscale": "" if self.upscale == 1 else str(self.upscale),
            "denoise": "" if self.denoise == -1 else str(self.denoise),
            "edits": self.edits.to_text(),
        }
        return "&".join(f"{key}={quote(text, safe='')}" for key, text in texts.items() if text)

    @classmethod
    def from_query(cls, query: str | Mapping[str, str]) -> Self:
        """Reads a recipe from what `to_query` writes, or from its decoded values by key.

        Raises UsageError with every fault at once, each with its key, what was there and what is
        wanted: keys that are unknown, missing or doubled, and values that are out of range.
        """
        texts, faults = _split(query) if isinstance(query, str) else (dict(query), [])
        for key in texts.keys() - set(KEYS):
            known = nearest(key, KEYS) or f"; there are {', '.join(KEYS)}"
            faults.append(f"unknown key {quoted(key)}{known}")
        faults.sort()
        values: dict[str, Any] = {}
        for key in KEYS:
            if key in texts:
                value, found = _read(key, texts[key])
                faults += found
                values[key] = value
            elif key in ("model", "seed"):
                faults.append(f"{key} is missing")
        if faults:
            raise FaultsError(WHAT, faults)
        return cls(**values)


def _split(query: str) -> tuple[dict[str, str], list[str]]:
    """Returns the decoded texts by key, and the faults of a query's outer form."""
    query = query.removeprefix("?")
    if len(query) > QUERY_MAX_CHARS:
        raise FaultsError(WHAT, [_too_long(len(query))])
    texts: dict[str, str] = {}
    faults = []
    for part in query.split("&") if query else []:
        key, equals, value = part.partition("=")
        try:
            key, value = (unquote_plus(text, errors="strict") for text in (key, value))
        except UnicodeDecodeError:
            faults.append(f"{quoted(part)} is not UTF-8")
            continue
        if not equals:
            faults.append(f"{quoted(part)} is no setting; one such as seed=17 is wanted")
        elif key in texts:
            faults.append(f"{quoted(key)} stands twice")
        else:
            texts[key] = value
    return texts, faults


def _read(key: str, text: str) -> tuple[Any, list[str]]:
    """Returns the value that the text of a key says, and its faults."""
    if key == "edits":
        try:
            return Edits.from_text(text), []
        except FaultsError as error:
            return None, [f"edits: {fault}" for fault in error.faults]
    value: Any = text
    if key in ("seed", "upscale", "denoise") and _WHOLE.fullmatch(text):
        value = int(text)
    elif key == "psi":
        number = read_number(text)
        value = text if number is None else number
    elif key == "labels":
        value = tuple(text.split(",")) if text else ()
    return value, _faults(key, value)


def _faults(key: str, value: Any) -> list[str]:
    """Returns what is wrong with the value of a key, as sentences without their dots."""
    if key == "labels":
        return _labels_faults(value)
    is_right, wanted = _RULES[key]
    verb = "are" if key == "edits" else "is"
    return [] if is_right(value) else [f"{key} {verb} {quoted(value)}; {wanted}"]


def _labels_faults(labels: object) -> list[str]:
    if not isinstance(labels, tuple | list):
        return [f"labels are {quoted(labels)}; a tuple of names is wanted"]
    faults = [
        f"labels hold {quoted(label)}; printable names of 1 to {MAX_NAME} characters, without "
        "commas or spaces at their ends, are wanted"
        for label in labels
        if not _is_label(label)
    ]
    if not faults:
        doubled = sorted({label for label in labels if labels.count(label) > 1})
        faults += [f"labels hold {quoted(label)} twice" for label in doubled]
    return faults


def _is_model(model: object) -> bool:
    return isinstance(model, str) and model.isprintable() and bool(_MODEL.fullmatch(model))


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_label(label: object) -> bool:
    if not isinstance(label, str) or not 1 <= len(label) <= MAX_NAME:
        return False
    return label.isprintable() and "," not in label and label == label.strip()


def _too_long(length: int) -> str:
    return f"{length:,} characters as a link; at most {QUERY_MAX_CHARS:,} are read"


# Plain rules and not pydantic's: every sentence is ours, and would have to be made from its errors.
_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "model": (
        _is_model,
        "a registered model's name and version such as avatar-generator/3, "
        'or "sha256:" and 16 hex digits are wanted',
    ),
    "seed": (
        lambda seed: _is_whole(seed) and 0 <= seed <= MAX_SEED,
        f"a whole number of 0 to {MAX_SEED} is wanted",
    ),
    "psi": (
        lambda psi: is_number(psi) and 0 <= psi <= PSI_MAX,
        f"a number of 0 (the mean face) to {PSI_MAX:g} is wanted, 1 is full variety",
    ),
    "noise": (lambda noise: noise in NOISES, f"one of {', '.join(NOISES)} is wanted"),
    "upscale": (
        lambda factor: _is_whole(factor) and factor in FACTORS,
        "1, 2 or 4 is wanted",
    ),
    "denoise": (
        lambda level: _is_whole(level) and level in DENOISE,
        "-1 (none) or 0 to 3 is wanted",
    ),
    "edits": (lambda edits: isinstance(edits, Edits), "Edits are wanted"),
}
KEYS = tuple(field.name for field in dataclasses.fields(Recipe))
