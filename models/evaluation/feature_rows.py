"""Feature rows: what is kept of a picture, as one row of float32, and the files of such rows.

The files grow chunk by chunk, and go on where an interrupted one stopped.
"""

import dataclasses
import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from dataset.errors import StoreError
from dataset.geometry import resized
from models.evaluation.label_judge import Judge, JudgeConfig, Rows32, thumbnails
from models.metrics.extractors import Extractor
from models.metrics.label_control import hair_tones

Pictures = npt.NDArray[np.uint8]  # [N,H,W,3], RGB

CPU_BATCH = 16
TONES = 3  # numbers of a hair tone
THUMBNAIL = 3 * JudgeConfig.thumbnail_px**2


@dataclasses.dataclass(frozen=True, eq=False)
class FeatureRows:
    """Rows of pictures, taken apart: `features` [N,F], hair `tones` [N,3], and the rest [N,R].

    The rest is the thumbnail of a real, or the judge's logits of a fake. `reduced`: at the end are
    the features [N,F] of the pictures reduced to another side.
    """

    rows: Rows32
    width: int  # F
    reduced: bool = False

    @property
    def features(self) -> Rows32:
        """The extractor's features [N,F]."""
        return self.rows[:, : self.width]

    @property
    def tones(self) -> npt.NDArray[np.float64]:
        """The hair's Lab colours [N,3]."""
        return np.asarray(self.rows[:, self.width : self.width + TONES], dtype=np.float64)

    @property
    def rest(self) -> Rows32:
        """What follows: thumbnails [N,T], or logits [N,L]."""
        return self.rows[:, self.width + TONES : -self.width if self.reduced else None]

    @property
    def reduced_features(self) -> Rows32:
        """The features [N,F] of the reduced pictures; of the pictures where none were reduced."""
        return self.rows[:, -self.width :] if self.reduced else self.features

    def first(self, count: int) -> "FeatureRows":
        """Returns the first rows alone."""
        return dataclasses.replace(self, rows=self.rows[:count])


@dataclasses.dataclass(frozen=True, eq=False)
class RowExtractor:
    """Turns pictures into rows: with a judge, logits follow the tone, else the thumbnail.

    reduced_px: side that pictures are reduced to for features at the end of a row; 0: none.
    """

    network: Extractor
    device: torch.device
    judge: Judge | None = None
    reduced_px: int = 0

    @property
    def width(self) -> int:
        """Numbers in a row."""
        rest = THUMBNAIL if self.judge is None else len(self.judge.bias)
        return self.network.features * (2 if self.reduced_px else 1) + TONES + rest

    def __call__(self, pictures: Pictures) -> Rows32:
        """Returns the rows [n,width] of pictures [n,H,W,3]."""
        features = self.features(pictures).astype(np.float32)
        thumbs = thumbnails(pictures)
        rest = thumbs if self.judge is None else self.judge.logits(features, thumbs)
        tones = hair_tones(pictures).astype(np.float32)
        if not self.reduced_px:
            return np.concatenate([features, tones, rest], axis=1)
        small = self.features(np.stack([resized(one, self.reduced_px) for one in pictures]))
        return np.concatenate([features, tones, rest, small.astype(np.float32)], axis=1)

    def read(self, file: "RowFile") -> FeatureRows:
        """Returns the rows of a file that is whole."""
        return FeatureRows(file.read(), self.network.features, bool(self.reduced_px))

    def features(self, pictures: Pictures) -> npt.NDArray[np.float64]:
        """Returns the extractor's features [n,F] of pictures [n,H,W,3], quicker than itself."""
        return self._quick(self._pieces(pictures), device=self.device)

    @functools.cached_property
    def _quick(self) -> Extractor:
        """The extractor on pictures that lie channels last: on a CPU 1.4x as fast."""

        def resize(images: torch.Tensor) -> torch.Tensor:
            resized: torch.Tensor = self.network.resize(images)
            return resized.contiguous(memory_format=torch.channels_last)

        return dataclasses.replace(self.network, resize=resize)

    def _pieces(self, pictures: Pictures) -> Iterator[Pictures]:
        """Cuts a chunk up on a CPU, whose caches hold what 16 pictures need: 1.5x as fast as 64."""
        size = CPU_BATCH if self.device.type == "cpu" else max(1, len(pictures))
        for start in range(0, len(pictures), size):
            yield pictures[start : start + size]


_BYTES = 4


class RowFile:
    """Rows [N,width] of float32 on disk, of which the first `done` are written.

    Only whole chunks count: what a chunk's rows are may depend, in rounding, on the batch that
    they were made in. A torn tail is cut off when the file is opened.
    """

    def __init__(self, path: Path, rows: int, width: int, *, chunk: int) -> None:
        self.path, self.rows, self.width = path, rows, width
        self._row_bytes = width * _BYTES
        self.done = self._whole(chunk)

    def append(self, rows: npt.NDArray[Any]) -> None:
        """Adds the next chunk [n,width], and returns once it is safe on the disk."""
        assert rows.shape[1] == self.width, (rows.shape, self.width)
        content = np.ascontiguousarray(rows, dtype=np.float32).tobytes()
        try:
            with self.path.open("r+b" if self.done else "wb") as file:
                file.seek(self.done * self._row_bytes)
                file.write(content)
                file.truncate()
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            raise StoreError(
                f"{self.path}: {error.strerror or error}; {self.rows * self._row_bytes:,} bytes "
                "are needed in all. The same command goes on from here."
            ) from error
        self.done += len(rows)

    def read(self) -> Rows32:
        """Maps all rows [N,width] into memory; they must be written."""
        assert self.done == self.rows, (self.path, self.done, self.rows)
        if not self.rows:
            return np.zeros((0, self.width), dtype=np.float32)
        return np.memmap(self.path, dtype=np.float32, mode="r", shape=(self.rows, self.width))

    def _whole(self, chunk: int) -> int:
        size = self.path.stat().st_size if self.path.exists() else 0
        there = min(size // self._row_bytes, self.rows)
        return there if there == self.rows else there - there % chunk
