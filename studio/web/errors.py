"""What went wrong, in words for people: on the page, to API clients, and in the server's log."""

import functools
import inspect
import logging
import re
from collections.abc import Callable, Iterator
from html import escape
from typing import Any, TypeVar

import gradio as gr

from dataset.errors import OmokageError
from studio.web.language import say

log = logging.getLogger("studio")

# What a file begins with tells programmers something, and artists nothing.
_BYTES = re.compile(r""" \(it begins with b(?:'[^']*'|"[^"]*")\)""")

F = TypeVar("F", bound=Callable[..., Any])


def error_boundary(function: F, *, as_html: bool = True) -> F:
    """Wraps a listener or endpoint, generators too: its errors become sentences, nothing more.

    as_html: for the page, whose toasts are HTML; a program gets the sentence as it is.

    What the user can mend is shown as it is; anything else is logged with its traceback and becomes
    one plain sentence, so that neither a path nor a line of code leaves the machine.
    """

    @functools.wraps(function)
    def called(*values: Any, **named: Any) -> Any:
        try:
            return function(*values, **named)
        except Exception as error:
            raise _sentence(error, as_html=as_html) from error

    @functools.wraps(function)
    def drawn_from(*values: Any, **named: Any) -> Iterator[Any]:
        try:
            yield from function(*values, **named)
        except Exception as error:
            raise _sentence(error, as_html=as_html) from error

    return drawn_from if inspect.isgeneratorfunction(function) else called  # type: ignore[return-value]


def shown(error: OmokageError) -> str:
    """Returns what a toast shows of an error: a file's name in it may be HTML."""
    return escape(_BYTES.sub("", str(error)), quote=False)


def _sentence(error: Exception, *, as_html: bool) -> gr.Error:
    if isinstance(error, gr.Error):
        return error
    if isinstance(error, OmokageError):
        text = shown(error) if as_html else str(error)
        return gr.Error(text, title=say("errors.again"), print_exception=False)
    log.error("unexpected", exc_info=error)
    return gr.Error(say("errors.ours"), title=say("errors.sorry"), print_exception=False)
