"""Reads the files of a generator or checkpoint: plain ones in its own folder, and no others."""

import json
from typing import Any

from dataset.errors import TrainingError
from dataset.store import Store

JSON_MAX_BYTES = 64 * 2**20  # a checkpoint's with 256 rows of 1,000 labels has 4 MB


def read_own(store: Store, path: str, *, within: str, max_bytes: int | None = None) -> bytes:
    """Reads a file of the store that lies in the folder `within`, also after links are followed.

    Raises TrainingError naming the file if it is a link that leads out of that folder, no plain
    file (a device, a pipe), or larger than max_bytes; StoreError if it is not there.
    """
    if store.is_local:
        _check(store, path, within, max_bytes)
    return store.read_bytes(path)


def read_own_json(store: Store, path: str, *, within: str) -> Any:
    """Reads a JSON file as `read_own` does; raises TrainingError naming it if it is none."""
    content = read_own(store, path, within=within, max_bytes=JSON_MAX_BYTES)
    try:
        return json.loads(content)
    except RecursionError as error:
        raise TrainingError(f"{store.url(path)} is nested too deeply") from error
    except ValueError as error:
        raise TrainingError(f"{store.url(path)} is not JSON: {error}") from error


def _check(store: Store, path: str, within: str, max_bytes: int | None) -> None:
    try:
        found, folder = store.local(path).resolve(), store.local(within).resolve()
    except (OSError, RuntimeError) as error:  # links in a circle
        raise TrainingError(f"{store.url(path)} is a link that leads nowhere: {error}") from error
    if not found.is_relative_to(folder):
        raise TrainingError(
            f"{store.url(path)} is a link that leads out of {folder}, to {found}: "
            "put the file itself there"
        )
    if found.exists() and not found.is_file():
        raise TrainingError(f"{store.url(path)} is no plain file")
    if max_bytes is not None and found.exists() and found.stat().st_size > max_bytes:
        raise TrainingError(
            f"{store.url(path)} has {found.stat().st_size:,} bytes, {max_bytes:,} at most wanted"
        )
