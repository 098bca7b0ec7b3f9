"""What we check ourselves of a search: boards ignore words that they do not know."""

import re

from crawlers.post import Post

_METATAG = re.compile(r"-?[a-z_]{2,}:\S+")


def matches(words: str, post: Post) -> bool:
    """Tells whether a post has the plain tags of a search, and none of its `-tags`.

    Metatags (`id:`, `rating:` …), alternatives (`~tag`) and patterns (`tag*`) are the board's own
    business; rating and state are checked by the policy anyway.
    """
    tags = post.tags
    for word in words.lower().split():
        if _METATAG.fullmatch(word) or word.startswith("~") or "*" in word:
            continue
        negated = word.startswith("-") and len(word) > 1
        if negated == (word.removeprefix("-") in tags if negated else word in tags):
            return False
    return True
