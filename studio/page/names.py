"""Names of the files that are downloaded."""

from pathlib import PurePath

from studio.recipe import Recipe

LONGEST = 80


def file_name(recipe: Recipe) -> str:
    """Returns what a drawn picture's download is called: by its model and seed."""
    return f"{plain(recipe.model)}-seed-{recipe.seed}.png"


def stem_of(name: str) -> str:
    """Returns what an uploaded file is called, without folders and ending."""
    return plain(PurePath(name.replace("\\", "/")).stem) or "picture"


def plain(text: str) -> str:
    """Returns a text of letters, digits, dots, dashes and underscores alone."""
    kept = (one if one.isascii() and (one.isalnum() or one in "._") else "-" for one in text)
    return "".join(kept).strip(".-")[:LONGEST]
