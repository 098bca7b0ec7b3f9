"""Takes the records of posts out of a board's answer, whichever way it wraps them."""

import json
from typing import Any

from crawlers.boards.markup import is_markup, read_markup
from crawlers.sites import Site
from dataset.errors import CrawlError


def records_of(body: bytes, site: Site) -> list[Any]:
    """Returns the records of an answer: a bare list, one under `post`, a single record, or XML.

    Raises CrawlError, with the board's own words if it has any, for an answer that has none.
    """
    if is_markup(body):
        return list(read_markup(body, site))
    answer = load_json(body, site)
    if isinstance(answer, list):
        return answer
    if isinstance(answer, dict):
        if "post" in answer:
            rows = answer["post"]
            return rows if isinstance(rows, list) else [rows]
        if "id" in answer:
            return [answer]
        if answer.keys() == {"@attributes"}:  # gelbooru.com leaves `post` out where it finds none
            return []
        said = answer.get("message") or answer.get("reason") or answer.get("error")
        if isinstance(said, str):
            raise CrawlError(f'{site.name} answers with no posts and says "{said[:160]}"')
    raise CrawlError(
        f"{site.name}: the answer is no list of posts but {type(answer).__name__}"
        + (f" of {', '.join(list(answer)[:5])}" if isinstance(answer, dict) else "")
    )


def load_json(body: bytes, site: Site) -> Any:
    """Reads an answer as JSON; raises CrawlError if it is none."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError) as error:
        raise CrawlError(f"{site.name}: the answer is not JSON: {error}") from error
