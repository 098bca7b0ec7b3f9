"""Turns our errors into Dagster failures: the user's message, without a traceback."""

import contextlib
from collections.abc import Iterator

import dagster as dg

from dataset.errors import OmokageError


@contextlib.contextmanager
def plain_failures() -> Iterator[None]:
    """Raises dagster.Failure with the text of an OmokageError that the block raises."""
    try:
        yield
    except OmokageError as error:
        raise dg.Failure(
            description=str(error), metadata={"kind": type(error).__name__}, allow_retries=False
        ) from error
