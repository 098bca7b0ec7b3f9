"""Keeps the pictures that were made last, up to a number of bytes."""

import threading
from collections import OrderedDict

from dataset.decode import Picture
from studio.recipe import Recipe


class KeptPictures:
    """Pictures by their recipe; the one that was asked for the longest ago goes first.

    An edit is tried out many times on the same drawn and upscaled picture, which takes a hundred
    times as long to make. Any number of threads may use one.
    """

    def __init__(self, max_bytes: int) -> None:
        """Keeps nothing yet; a picture of more than max_bytes is never kept."""
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._pictures: OrderedDict[Recipe, Picture] = OrderedDict()
        self._size_bytes = 0

    @property
    def size_bytes(self) -> int:
        """How much is kept."""
        return self._size_bytes

    def get(self, recipe: Recipe) -> Picture | None:
        """Returns the picture of a recipe, or None if it is not kept."""
        with self._lock:
            if recipe in self._pictures:
                self._pictures.move_to_end(recipe)
            return self._pictures.get(recipe)

    def put(self, recipe: Recipe, picture: Picture) -> None:
        """Keeps a picture, which nobody may write to from now on."""
        picture.flags.writeable = False
        with self._lock:
            if recipe not in self._pictures:
                self._size_bytes += picture.nbytes
            self._pictures[recipe] = picture
            self._pictures.move_to_end(recipe)
            while self._size_bytes > self._max_bytes:
                _, oldest = self._pictures.popitem(last=False)
                self._size_bytes -= oldest.nbytes
