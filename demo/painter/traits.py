"""Who is drawn: the traits of characters and pictures, chosen by lot, and their tags."""

from dataclasses import dataclass
from random import Random
from typing import TypeVar

from demo.painter.colours import ACCENT, CLOTH, EYES, HAIR, RGB, SCHOOL, SKIN, shifted

T = TypeVar("T")

# Weights are shares of 100. Ten hair colours, six eye colours and seven other traits that are
# to become labels stay well between 5 and 50 %; the rest are rarer, as most tags of boards are.
HAIR_COLOURS = {
    "blonde_hair": 12,
    "brown_hair": 11,
    "black_hair": 11,
    "blue_hair": 11,
    "pink_hair": 10,
    "purple_hair": 9,
    "white_hair": 9,
    "red_hair": 9,
    "green_hair": 9,
    "grey_hair": 9,
}
EYE_COLOURS = {
    "blue_eyes": 22,
    "red_eyes": 17,
    "brown_eyes": 14,
    "green_eyes": 14,
    "purple_eyes": 14,
    "yellow_eyes": 13,
    "pink_eyes": 3,
    "aqua_eyes": 3,
}
LENGTHS = {"short_hair": 46, "medium_hair": 9, "long_hair": 41, "very_long_hair": 4}
STYLES = {
    "short_hair": {"loose": 84, "twintails": 8, "ponytail": 6, "braid": 2},
    "medium_hair": {"loose": 70, "twintails": 16, "ponytail": 14},
    "long_hair": {"loose": 48, "twintails": 24, "ponytail": 22, "braid": 6},
    "very_long_hair": {"loose": 65, "twintails": 35},
}
FRINGES = {"locks": 66, "swept": 26, "parted": 4, "blunt": 4}
EARS = {"none": 87, "cat_ears": 5, "fox_ears": 4, "rabbit_ears": 4}
HATS = {"none": 96, "beret": 1, "straw_hat": 1, "witch_hat": 1, "nurse_cap": 1}
ORNAMENTS = {
    "none": 68,
    "hairclip": 5,
    "hair_flower": 4,
    "star_hair_ornament": 5,
    "heart_hair_ornament": 3,
    "x_hair_ornament": 3,
    "hair_bow": 4,
    "hair_ribbon": 3,
    "hairband": 4,
}
# These tags imply hair_ornament; bows, ribbons and bands are tagged by their own names only.
IS_HAIR_ORNAMENT = {
    "hairclip",
    "hair_flower",
    "star_hair_ornament",
    "heart_hair_ornament",
    "x_hair_ornament",
}
OUTFITS = {
    "serafuku": 26,
    "collared_shirt": 20,
    "hoodie": 18,
    "dress": 20,
    "kimono": 10,
    "sweater": 6,
}
MOUTHS = {"smile": 34, "open_mouth": 24, "closed_mouth": 20, "grin": 8, ":o": 7, "frown": 7}
BACKDROPS = {
    "simple": 16,
    "white": 2,
    "gradient": 18,
    "sky": 16,
    "bokeh": 12,
    "night": 9,
    "petals": 10,
    "room": 8,
    "pattern": 9,
}
BACKDROP_TAGS: dict[str, tuple[str, ...]] = {
    "simple": ("simple_background",),
    "white": ("simple_background", "white_background"),
    "gradient": ("gradient_background", "simple_background"),
    "sky": ("blue_sky", "cloud", "day", "outdoors", "sky"),
    "bokeh": ("blurry_background",),
    "night": ("night", "night_sky", "outdoors", "sky", "star_(sky)"),
    "petals": ("cherry_blossoms", "outdoors", "petals"),
    "room": ("indoors", "window"),
    "pattern": ("patterned_background",),
}


@dataclass(frozen=True)
class Character:
    """One character's traits; `jitter` seeds the small irregularities of its lines."""

    hair_colour: str
    hair_rgb: RGB
    eye_colour: str
    eye_rgb: RGB
    skin: RGB
    length: str
    style: str
    fringe: str
    ahoge: bool
    ears: str
    hat: str
    ornament: str
    glasses: bool
    outfit: str
    cloth: RGB
    trim: RGB
    accent: RGB
    mouth: str
    eyes_shut: str  # "open", "one" (a wink) or "both"
    blush: float  # 0..1
    eye_height: float  # 1 is plain
    eye_slant: float  # >0 rises outwards
    brow: float  # <0 worried, >0 stern
    jaw: float  # half-width of the jaw, in half-widths of the face
    chin: float  # distance of the chin below the face's centre
    turn: float  # -1..1, features slide sideways
    tilt: float  # degrees, clockwise
    side: int  # -1 or 1: where the parting, the clip and the light are
    jitter: int

    @property
    def tags(self) -> tuple[str, ...]:
        """Its appearance tags, sorted: hair, eyes and what is on the head."""
        tags = {self.hair_colour, self.length}
        if self.length == "very_long_hair":
            tags.add("long_hair")
        if self.style != "loose":
            tags.add(self.style)
        if self.eyes_shut != "both":
            tags.add(self.eye_colour)
        tags |= {"blunt": {"blunt_bangs"}, "parted": {"parted_bangs"}}.get(self.fringe, set())
        if self.ahoge:
            tags.add("ahoge")
        if self.ears != "none":
            tags |= {"animal_ears", self.ears}
        if self.hat != "none":
            tags |= {"hat", self.hat}
        if self.ornament != "none":
            tags.add(self.ornament)
        if self.ornament in IS_HAIR_ORNAMENT:
            tags.add("hair_ornament")
        if self.glasses:
            tags.add("glasses")
        return tuple(sorted(tags))

    @property
    def other_tags(self) -> tuple[str, ...]:
        """Its expression and clothes, sorted."""
        tags = {self.outfit}
        tags |= {"serafuku": {"sailor_collar", "neckerchief"}, "sweater": {"turtleneck"}}.get(
            self.outfit, set()
        )
        tags |= {
            "smile": {"smile", "closed_mouth"},
            "grin": {"smile", "grin"},
            "open_mouth": {"smile", "open_mouth"},
            "frown": {"frown", "closed_mouth"},
        }.get(self.mouth, {self.mouth})
        if self.blush > 0.55:
            tags.add("blush")
        if self.eyes_shut == "one":
            tags.add("one_eye_closed")
        if self.eyes_shut == "both":
            tags.add("closed_eyes")
        return tuple(sorted(tags))


@dataclass(frozen=True)
class Placement:
    """Placement of a character: its face's centre and half-width, in final pixels."""

    character: Character
    x: float
    y: float
    half: float


@dataclass(frozen=True)
class Picture:
    """A whole picture before it is drawn."""

    width: int
    height: int
    backdrop: str
    palette: int
    placements: tuple[Placement, ...]
    jitter: int

    @property
    def tags(self) -> tuple[str, ...]:
        """All general tags, sorted."""
        tags: set[str] = set(BACKDROP_TAGS[self.backdrop])
        for placed in self.placements:
            tags |= {*placed.character.tags, *placed.character.other_tags}
        tags |= {"1girl", "solo"} if len(self.placements) == 1 else {"2girls", "multiple_girls"}
        if min(p.half for p in self.placements) < 85:
            tags.add("upper_body")
        elif len(self.placements) == 1:
            tags.add("portrait")
        tags.add("looking_at_viewer")
        return tuple(sorted(tags))


def pick(rng: Random, weights: dict[str, int]) -> str:
    """A key by lot, by weight."""
    return rng.choices(list(weights), weights=list(weights.values()))[0]


def _one(rng: Random, among: tuple[T, ...]) -> T:
    return among[rng.randrange(len(among))]


def _jittered(rng: Random, base: RGB, hue: float) -> RGB:
    return shifted(
        base,
        hue=rng.uniform(-hue, hue),
        saturation=rng.uniform(-0.05, 0.05) if max(base) - min(base) > 40 else 0.0,
        value=rng.uniform(0.95, 1.04),
    )


def sample_character(rng: Random, length: str | None = None) -> Character:
    """One character by lot, of a given hair length if one is named; nothing is drawn."""
    hair, eyes = pick(rng, HAIR_COLOURS), pick(rng, EYE_COLOURS)
    length = length or pick(rng, LENGTHS)
    hat, ears = pick(rng, HATS), pick(rng, EARS)
    ornament = pick(rng, ORNAMENTS)
    outfit = pick(rng, OUTFITS)
    cloth = _one(rng, SCHOOL if outfit == "serafuku" else CLOTH)
    return Character(
        hair_colour=hair,
        hair_rgb=_jittered(rng, HAIR[hair], 0.012),
        eye_colour=eyes,
        eye_rgb=_jittered(rng, EYES[eyes], 0.015),
        skin=_one(rng, SKIN),
        length=length,
        style=pick(rng, STYLES[length]),
        fringe=pick(rng, FRINGES),
        ahoge=hat == "none" and rng.random() < 0.19,
        ears="none" if hat != "none" else ears,
        hat=hat,
        ornament="none" if hat != "none" and ornament in {"hairband", "hair_bow"} else ornament,
        glasses=rng.random() < 0.03,
        outfit=outfit,
        cloth=cloth,
        trim=_one(rng, CLOTH),
        accent=_one(rng, ACCENT),
        mouth=pick(rng, MOUTHS),
        eyes_shut=rng.choices(("open", "one", "both"), weights=(97.5, 1.8, 0.7))[0],
        blush=rng.random(),
        eye_height=rng.uniform(0.92, 1.03),
        eye_slant=rng.uniform(-0.035, 0.05),
        brow=rng.uniform(-0.06, 0.025),
        jaw=rng.uniform(0.65, 0.75),
        chin=rng.uniform(0.97, 1.06),
        turn=rng.uniform(-1.0, 0.7),
        tilt=max(-8.0, min(8.0, rng.gauss(0.0, 3.4))),
        side=rng.choice((-1, 1)),
        jitter=rng.getrandbits(32),
    )


def sample_picture(rng: Random) -> Picture:
    """A random picture: size, backdrop, characters and their placement; nothing is drawn."""
    two = rng.random() < 1 / 15
    characters = [sample_character(rng)]
    if two:
        # of one length: a pair with both lengths would lift either tag towards the 50 % limit
        characters.append(sample_character(rng, characters[0].length))
    width, height, placements = (
        _staged_pair(rng, characters) if two else _staged(rng, characters[0])
    )
    return Picture(
        width=width,
        height=height,
        backdrop=pick(rng, BACKDROPS),
        palette=rng.randrange(64),
        placements=placements,
        jitter=rng.getrandbits(32),
    )


def headroom(character: Character) -> float:
    """The space that a character needs above its face's centre, in half-widths of its face."""
    tall = {"rabbit_ears": 2.75, "fox_ears": 2.15, "cat_ears": 2.0}.get(character.ears, 1.62)
    return max(tall, 2.3 if character.hat == "witch_hat" else 0.0, 1.8 if character.ahoge else 0.0)


def _staged(rng: Random, who: Character) -> tuple[int, int, tuple[Placement, ...]]:
    half = 70.0 * (160.0 / 70.0) ** rng.random()
    above = headroom(who) * rng.uniform(0.98, 1.25)
    below = rng.uniform(2.2, 3.3) if half > 95 else rng.uniform(2.8, 4.6)
    height = int(max(500, min(900, half * (above + below))))
    half = min(half, height / (above + 1.9))
    across = rng.uniform(3.7, 5.0)
    width = int(max(500, min(900, half * across)))
    if rng.random() < 0.85:
        width = min(width, height)
    x = width * 0.5 + rng.uniform(-0.5, 0.5) * max(0.0, width - 3.8 * half)
    spare = max(0.0, height - half * (above + 4.6))
    y = half * above + spare * rng.uniform(0.3, 0.9)
    return width, height, (Placement(who, x, y, half),)


def _staged_pair(rng: Random, pair: list[Character]) -> tuple[int, int, tuple[Placement, ...]]:
    width, height = rng.randint(740, 900), rng.randint(560, 720)
    half = rng.uniform(68.0, 88.0)
    placed = []
    for who, share in zip(pair, (0.28, 0.72), strict=True):
        size = half * rng.uniform(0.95, 1.05)
        top = size * headroom(who) + 8
        y = min(top + rng.uniform(0.0, 0.2) * height, height - 2.4 * size)
        placed.append(Placement(who, width * (share + rng.uniform(-0.03, 0.03)), y, size))
    return width, height, tuple(placed)


APPEARANCE_TAGS: frozenset[str] = frozenset(
    {
        *HAIR_COLOURS,
        *EYE_COLOURS,
        *LENGTHS,
        *(tag for tag in (*EARS, *HATS, *ORNAMENTS) if tag != "none"),
        "ahoge",
        "animal_ears",
        "blunt_bangs",
        "braid",
        "glasses",
        "hair_ornament",
        "hat",
        "parted_bangs",
        "ponytail",
        "twintails",
    }
)
EXPRESSION_TAGS: frozenset[str] = frozenset(
    {
        ":o",
        "blush",
        "closed_eyes",
        "closed_mouth",
        "frown",
        "grin",
        "looking_at_viewer",
        "one_eye_closed",
        "open_mouth",
        "smile",
    }
)
CLOTHES_TAGS: frozenset[str] = frozenset({*OUTFITS, "neckerchief", "sailor_collar", "turtleneck"})
COUNT_TAGS: frozenset[str] = frozenset(
    {"1girl", "2girls", "multiple_girls", "no_humans", "portrait", "solo", "upper_body"}
)
MEDIUM_TAGS: frozenset[str] = frozenset(
    {
        "4koma",
        "comic",
        "greyscale",
        "lineart",
        "monochrome",
        "sketch",
        "speech_bubble",
        "white_background",
    }
)
PLACE_TAGS: frozenset[str] = frozenset(
    {
        *(tag for tags in BACKDROP_TAGS.values() for tag in tags),
        "beach",
        "building",
        "city_lights",
        "cityscape",
        "flower",
        "food",
        "fruit",
        "hill",
        "horizon",
        "moon",
        "ocean",
        "scenery",
        "still_life",
        "tree",
        "vase",
    }
)
TAGS: frozenset[str] = (
    APPEARANCE_TAGS | EXPRESSION_TAGS | CLOTHES_TAGS | COUNT_TAGS | MEDIUM_TAGS | PLACE_TAGS
)
