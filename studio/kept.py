"""Keeps the pictures that were made last, up to a number of bytes."""

import threading
from collections import OrderedDict
from collections.abc import Hashable

from dataset.decode import Picture


class KeptPictures:
    """Pictures by what they are made from; the one asked for the longest ago goes first.

    An edit is tried out many times on the same drawn and upscaled picture, which takes a hundred
    times as long to make. Any number of threads may use one.
    """

    def __init__(self, max_bytes: int) -> None:
        """Keeps nothing yet; a picture of more than max_bytes is never kept."""
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._pictures: OrderedDict[Hashable, Picture] = OrderedDict()
        self._size_bytes = 0

    @property
    def size_bytes(self) -> int:
        """How much is kept."""
        return self._size_bytes

    def get(self, key: Hashable) -> Picture | None:
        """Returns a picture, or None if it is not kept."""
        with self._lock:
            if key in self._pictures:
                self._pictures.move_to_end(key)
            return self._pictures.get(key)

    def put(self, key: Hashable, picture: Picture) -> None:
        """Keeps a picture, which nobody may write to from now on."""
        picture.flags.writeable = False
        with self._lock:
            if key not in self._pictures:
                self._size_bytes += picture.nbytes
            self._pictures[key] = picture
            self._pictures.move_to_end(key)
            while self._size_bytes > self._max_bytes:
                _, oldest = self._pictures.popitem(last=False)
                self._size_bytes -= oldest.nbytes
