"""What a drawing is: the picture, its tags and its faces."""

from dataclasses import dataclass

from PIL import Image


@dataclass(frozen=True)
class Face:
    """A drawn face's box (forehead to chin, cheek to cheek), in pixels of the final picture."""

    x: int
    y: int
    w: int
    h: int


@dataclass(frozen=True)
class Portrayed:
    """One drawn character: its appearance tags, sorted, and its face."""

    tags: tuple[str, ...]
    face: Face


@dataclass(frozen=True)
class Drawing:
    """A picture (RGB) with the truth about it; tags are general tags, sorted."""

    image: Image.Image
    tags: tuple[str, ...]
    characters: tuple[Portrayed, ...]
    faces: tuple[Face, ...]
