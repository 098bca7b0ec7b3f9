"""What can label faces, whatever it is made of: our own network or a user's ONNX file."""

from typing import Protocol

import numpy as np
import numpy.typing as npt

from dataset.errors import TrainingError

Images = npt.NDArray[np.uint8]  # [N,S,S,3], RGB
Probabilities = npt.NDArray[np.float32]  # [N,L], 0 to 1


class LabelModel(Protocol):
    """Gives each label of each picture a probability."""

    @property
    def label_names(self) -> tuple[str, ...]:
        """The labels in the order of the columns."""

    @property
    def digest(self) -> str:
        """The sha256 over all that decides its answers."""

    @property
    def input_px(self) -> int:
        """The side that it sees pictures at."""

    def probabilities(self, images: Images) -> Probabilities:
        """Returns [N,L] for uint8 pictures [N,S,S,3]."""


def check_images(images: Images) -> None:
    """Raises TrainingError unless `images` are uint8 [N,S,S,3]."""
    shape = images.shape
    if images.dtype != np.uint8 or len(shape) != 4 or shape[3] != 3 or shape[1] != shape[2]:
        raise TrainingError(f"pictures are {images.dtype} {list(shape)}; uint8 [N,S,S,3] wanted")
