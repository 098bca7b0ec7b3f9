"""An LRU cache of pictures, bounded by their bytes."""

import threading
from collections.abc import Hashable

from cachetools import LRUCache

from dataset.decode import Picture


class ImageCache:
    """Pictures by what they are made from; the least recently used are evicted first.

    An edit is tried out many times on the same drawn and upscaled picture, which takes a hundred
    times as long to make. Any number of threads may use one.
    """

    def __init__(self, max_bytes: int) -> None:
        """Holds nothing yet; a picture of more than max_bytes is never held."""
        self._lock = threading.Lock()
        self._pictures: LRUCache[Hashable, Picture] = LRUCache(
            max_bytes, getsizeof=lambda picture: picture.nbytes
        )

    @property
    def size_bytes(self) -> int:
        """How much is held."""
        return int(self._pictures.currsize)

    def get(self, key: Hashable) -> Picture | None:
        """Returns a picture, or None if it is not in the cache."""
        with self._lock:
            return self._pictures.get(key)

    def put(self, key: Hashable, picture: Picture) -> None:
        """Stores a picture, which nobody may write to from now on."""
        picture.flags.writeable = False
        if picture.nbytes <= self._pictures.maxsize:
            with self._lock:
                self._pictures[key] = picture
