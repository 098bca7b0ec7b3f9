"""What wraps each listener: the page's state comes in and goes out, and faults become sentences."""

import contextlib
import functools
import inspect
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from html import escape
from typing import Any, TypeVar

import gradio as gr

from dataset.errors import OmokageError
from studio.web.language import say
from studio.web.page_state import Page, PageState

log = logging.getLogger("studio")

# What a file begins with tells programmers something, and artists nothing.
_BYTES = re.compile(r""" \(it begins with b(?:'[^']*'|"[^"]*")\)""")

F = TypeVar("F", bound=Callable[..., Any])


def listener(function: F, *, as_html: bool = True) -> F:
    """Wraps a listener or endpoint, generators too: it gets the page's state, and raises sentences.

    A first argument that is a `Page` reaches the function as the state that it holds then. Where
    what comes back begins with a state, what the function changed of it goes into the page, and the
    page takes its place. A generator gets from each `yield` the state that the page has then, and
    goes on from it.

    What the user can mend is shown as it is; anything else is logged with its traceback and becomes
    one plain sentence, so that neither a path nor a line of code leaves the machine. as_html: for
    the page, whose toasts are HTML; a program gets the sentence as it is.
    """

    @functools.wraps(function)
    def called(*values: Any, **named: Any) -> Any:
        try:
            page = _page_of(values)
            if page is None:
                return function(*values, **named)
            given = page.now
            return _merged(page, given, function(given, *values[1:], **named))
        except Exception as error:
            raise _sentence(error, as_html=as_html) from error

    @functools.wraps(function)
    def drawn_from(*values: Any, **named: Any) -> Iterator[Any]:
        try:
            page = _page_of(values)
            if page is None:
                yield from function(*values, **named)
                return
            given = page.now
            with contextlib.closing(function(given, *values[1:], **named)) as results:
                result = next(results, None)
                while result is not None:
                    yield _merged(page, given, result)
                    given = page.now
                    try:
                        result = results.send(given)
                    except StopIteration:
                        return
        except Exception as error:
            raise _sentence(error, as_html=as_html) from error

    return drawn_from if inspect.isgeneratorfunction(function) else called  # type: ignore[return-value]


def _page_of(values: Sequence[Any]) -> Page | None:
    return values[0] if values and isinstance(values[0], Page) else None


def _state_in(result: Any) -> PageState | None:
    """Returns the state that a list of updates begins with, if it does."""
    found = result[0] if isinstance(result, list) and result else None
    return found if isinstance(found, PageState) else None


def _merged(page: Page, given: PageState, result: Any) -> Any:
    changed = _state_in(result)
    if changed is None:
        return result
    page.merge(given, changed)
    return [page, *result[1:]]


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
