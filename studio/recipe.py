"""All that a picture of the studio is made from, and its one text: what links and PNGs hold."""

import dataclasses
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Self, TypeVar
from urllib.parse import quote, unquote_plus

from dataset.errors import UsageError, nearest
from models.sampling.characters import read_shift
from studio.edits import DECIMALS, Edits, number_text, read_number
from studio.upscaling import DENOISE
from studio.upscaling import FACTORS as ENLARGEMENTS
from studio.validation import (
    MAX_SEED,
    PSI_MAX,
    QUERY_MAX_CHARS,
    SLIDER_MAX,
    SLIDERS_MAX,
    VARIATION_MAX,
    VARIATIONS_MAX,
    FaultsError,
    is_number,
    quoted,
)

NOISES = ("const", "none", "random")  # those of models.sampling.draw, which needs torch
FACTORS = (1, *ENLARGEMENTS)
MAX_NAME = 200  # characters of a label or of a registered model's name
WHAT = "the settings of the picture"

_MODEL = re.compile(rf"[^/:]{{1,{MAX_NAME}}}/[1-9][0-9]{{0,9}}|sha256:[0-9a-f]{{16}}")
_WHOLE = re.compile(r"-?[0-9]{1,20}")
_AMOUNTS = ("strengths", "variations", "sliders")  # keys whose values are Amounts
_Name = TypeVar("_Name", str, int)
Amounts = tuple[tuple[_Name, float], ...]  # by the names of labels or directions, or noise seeds


@dataclasses.dataclass(frozen=True)
class Recipe:
    """All that a picture is made from: drawn, then upscaled, then edited.

    The same recipe gives the same bytes. psi and all amounts are rounded to 4 decimals, amounts
    that change nothing are left out, and the others come in one order. Without upscaling there is
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
        strengths: of labels among `labels`, above 0 and below 1, such as ("smile", 0.5); a label
            that is not named has its full strength, 1.
        variations: noise seeds and amounts, -2 to 2; the order of variations does not matter.
        sliders: names of the model's directions and amounts in their unit, -10 to 10.
        latent: an inverted picture, as `sampling.characters.shift_text` writes it: how far it lies
            from what seed and labels alone give; "" for none.

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
    strengths: Amounts[str] = ()
    variations: Amounts[int] = ()
    sliders: Amounts[str] = ()
    latent: str = ""

    def __post_init__(self) -> None:
        faults = [fault for name in KEYS for fault in _faults(name, getattr(self, name))]
        if not faults:
            faults += _strangers(self.strengths, self.labels)
        if faults:
            raise FaultsError(WHAT, faults)
        object.__setattr__(self, "labels", tuple(self.labels))
        strengths = _canonical(self.strengths, nothing=1.0)
        object.__setattr__(self, "strengths", _in_order(strengths, self.labels))
        object.__setattr__(self, "variations", _canonical(self.variations))
        object.__setattr__(self, "sliders", _canonical(self.sliders))
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
            **amounts_of(self),
            "latent": self.latent,
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
    elif key in _AMOUNTS:
        value = tuple(_read_pair(key, part) for part in text.split(",")) if text else ()
    return value, _faults(key, value)


def _read_pair(key: str, text: str) -> tuple[Any, Any]:
    """Returns what `12:0.4` says; names may hold colons themselves, so the last one parts them."""
    name, _, amount = text.rpartition(":")
    number = read_number(amount)
    is_seed = key == "variations" and _WHOLE.fullmatch(name)
    return int(name) if is_seed else name, amount if number is None else number


def amounts_text(pairs: Iterable[tuple[str | int, float]]) -> str:
    """Returns `smile:1.5,hair_length:-0.5`, as links and PNGs hold amounts by name or seed."""
    return ",".join(f"{name}:{number_text(amount)}" for name, amount in pairs)


def amounts_of(made: object) -> dict[str, str]:
    """Returns strengths, variations and sliders of a recipe, or of its character, as texts by name.

    Those that it has none of are left out.
    """
    texts = {name: amounts_text(getattr(made, name)) for name in _AMOUNTS}
    return {name: text for name, text in texts.items() if text}


def _faults(key: str, value: Any) -> list[str]:
    """Returns what is wrong with the value of a key, as sentences without their dots."""
    if key == "labels":
        return _labels_faults(value)
    if key in _AMOUNTS:
        return _amounts_faults(key, value)
    if key == "latent":
        return _latent_faults(value)
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


def _amounts_faults(key: str, pairs: object) -> list[str]:
    names, amounts = _AMOUNT_RULES[key]
    if not isinstance(pairs, tuple | list) or not all(
        isinstance(pair, tuple | list) and len(pair) == 2 for pair in pairs
    ):
        return [f"{key} are {quoted(pairs)}; pairs such as {names.example} are wanted"]
    if len(pairs) > names.most:
        return [f"{key} are {len(pairs)}; at most {names.most} are wanted"]
    faults = []
    for name, amount in pairs:
        if not names.is_right(name):
            faults.append(f"{key} hold {quoted(name)}; {names.wanted}, as in {names.example}")
        elif not is_number(amount) or not amounts.low <= round(amount, DECIMALS) <= amounts.high:
            faults.append(f"{key} hold {quoted(name)} with {quoted(amount)}; {amounts.wanted}")
    named = [name for name, _ in pairs]
    if not faults:
        doubled = sorted({name for name in named if named.count(name) > 1})
        faults += [f"{key} hold {quoted(name)} twice" for name in doubled]
    return faults


def _latent_faults(latent: object) -> list[str]:
    if not isinstance(latent, str):
        return [f"latent is {quoted(latent)}; a text is wanted"]
    try:
        if latent:
            read_shift(latent)
    except UsageError as error:
        return [f"latent is {quoted(latent)}, the latent of no picture: {error}"]
    return []


def _strangers(strengths: Sequence[tuple[str, float]], labels: Sequence[str]) -> list[str]:
    return [
        f"strengths hold {quoted(name)}, which is none of the labels"
        for name, _ in strengths
        if name not in labels
    ]


def _canonical(pairs: Sequence[tuple[Any, float]], *, nothing: float = 0.0) -> Amounts[Any]:
    """Returns pairs with rounded amounts in the order of names, without those of no effect."""
    rounded = [(name, round(float(amount), DECIMALS) + 0.0) for name, amount in pairs]
    return tuple(sorted(pair for pair in rounded if pair[1] != nothing))


def _in_order(pairs: Amounts[Any], names: Sequence[str]) -> Amounts[Any]:
    return tuple(sorted(pairs, key=lambda pair: names.index(pair[0])))


def _is_model(model: object) -> bool:
    return isinstance(model, str) and model.isprintable() and bool(_MODEL.fullmatch(model))


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_seed(value: object) -> bool:
    return isinstance(value, int) and _is_whole(value) and 0 <= value <= MAX_SEED


def _is_label(label: object) -> bool:
    if not isinstance(label, str) or not 1 <= len(label) <= MAX_NAME:
        return False
    return label.isprintable() and "," not in label and label == label.strip()


def _too_long(length: int) -> str:
    return f"{length:,} characters as a link; at most {QUERY_MAX_CHARS:,} are read"


@dataclasses.dataclass(frozen=True)
class _Names:
    is_right: Callable[[Any], bool]
    wanted: str
    example: str
    most: int


@dataclasses.dataclass(frozen=True)
class _Range:
    low: float
    high: float
    wanted: str


_LEAST = 10.0**-DECIMALS
_AMOUNT_RULES = {
    "strengths": (
        _Names(_is_label, "a label's name is wanted", "smile:0.5", 1_000),
        _Range(_LEAST, 1, "a number above 0 (without the label) to 1 (all of it) is wanted"),
    ),
    "variations": (
        _Names(_is_seed, f"a whole number of 0 to {MAX_SEED} is wanted", "12:0.4", VARIATIONS_MAX),
        _Range(
            -VARIATION_MAX,
            VARIATION_MAX,
            f"a number of {-VARIATION_MAX:g} to {VARIATION_MAX:g} is wanted",
        ),
    ),
    "sliders": (
        _Names(_is_label, "a direction's name is wanted", "smile:1.5", SLIDERS_MAX),
        _Range(-SLIDER_MAX, SLIDER_MAX, f"a number of {-SLIDER_MAX:g} to {SLIDER_MAX:g} is wanted"),
    ),
}
# Plain rules and not pydantic's: every sentence is ours, and would have to be made from its errors.
_RULES: dict[str, tuple[Callable[[Any], bool], str]] = {
    "model": (
        _is_model,
        "a registered model's name and version such as avatar-generator/3, "
        'or "sha256:" and 16 hex digits are wanted',
    ),
    "seed": (
        _is_seed,
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
