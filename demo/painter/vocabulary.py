"""Every tag that the painter may give, in Danbooru's spelling."""

from demo.painter.traits import (
    BACKDROP_TAGS,
    EARS,
    EYE_COLOURS,
    HAIR_COLOURS,
    HATS,
    LENGTHS,
    ORNAMENTS,
    OUTFITS,
)

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
