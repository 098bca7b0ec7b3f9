"""Tags pictures anywhere on disk: folders and files in, one result a picture out."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from dataset.decode import UnreadablePicture, decode
from dataset.errors import UsageError
from dataset.geometry import centre_square, cut
from models.tagger.interface import LabelModel

EXTENSIONS = (".jpg", ".jpeg", ".png", ".gif", ".webp", ".avif")
_AT_ONCE = 64


@dataclasses.dataclass(frozen=True)
class Tagged:
    """One picture: probabilities by label, or the fault why there are none."""

    file: str
    probabilities: dict[str, float]
    fault: str | None = None

    def labels(self, threshold: float) -> list[str]:
        """Returns the labels at or above the threshold, the surest first."""
        sure = [(p, name) for name, p in self.probabilities.items() if p >= threshold]
        return [name for _, name in sorted(sure, key=lambda one: (-one[0], one[1]))]


def picture_files(paths: Sequence[Path]) -> list[Path]:
    """Returns files as they are named and all pictures below folders, sorted by name.

    Raises UsageError naming a path that is not there, or a folder without pictures.
    """
    found: list[Path] = []
    for path in paths:
        if path.is_dir():
            inside = sorted(p for p in path.rglob("*") if p.suffix.lower() in EXTENSIONS)
            if not inside:
                raise UsageError(f"{path} holds no picture; {' '.join(EXTENSIONS)} are read")
            found += inside
        elif path.is_file():
            found.append(path)
        else:
            raise UsageError(f"{path} is not there; a picture or a folder of pictures wanted")
    return found


def tag_pictures(model: LabelModel, files: Sequence[Path]) -> Iterator[Tagged]:
    """Yields a result for each file in its order; one that cannot be read bears its fault.

    Pictures are taken for faces already cropped: of one that is not square, the middle square.
    """
    for start in range(0, len(files), _AT_ONCE):
        some = files[start : start + _AT_ONCE]
        squares, faults = [], {}
        for file in some:
            try:
                picture = decode(file.read_bytes(), where=str(file))
            except (UnreadablePicture, OSError) as error:
                faults[file] = str(error)
                continue
            square = centre_square(width=picture.shape[1], height=picture.shape[0])
            squares.append(cut(picture, square, side_px=model.input_px))
        said = iter(model.probabilities(np.stack(squares)).tolist() if squares else [])
        for file in some:
            if file in faults:
                yield Tagged(str(file), {}, faults[file])
            else:
                row = [round(p, 6) for p in next(said)]
                yield Tagged(str(file), dict(zip(model.label_names, row, strict=True)))
