"""What went wrong, in words for people: on the page, to API clients, and in the server's log."""

import functools
import inspect
import logging
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import gradio as gr

from dataset.errors import OmokageError

log = logging.getLogger("studio")

OURS = "Something went wrong in the studio itself; its log says more. The page goes on."

F = TypeVar("F", bound=Callable[..., Any])


def error_boundary(function: F) -> F:
    """Wraps a listener or endpoint, generators too: its errors become sentences, nothing more.

    What the user can mend is shown as it is; anything else is logged with its traceback and becomes
    one plain sentence, so that neither a path nor a line of code leaves the machine.
    """

    @functools.wraps(function)
    def called(*values: Any, **named: Any) -> Any:
        try:
            return function(*values, **named)
        except Exception as error:
            raise _sentence(error) from error

    @functools.wraps(function)
    def drawn_from(*values: Any, **named: Any) -> Iterator[Any]:
        try:
            yield from function(*values, **named)
        except Exception as error:
            raise _sentence(error) from error

    return drawn_from if inspect.isgeneratorfunction(function) else called  # type: ignore[return-value]


def _sentence(error: Exception) -> gr.Error:
    if isinstance(error, gr.Error):
        return error
    if isinstance(error, OmokageError):
        return gr.Error(str(error), title="Please look again", print_exception=False)
    log.error("unexpected", exc_info=error)
    return gr.Error(OURS, title="Sorry", print_exception=False)
