"""The takedown list by boards: an entry may name a site, or the board that the site shows."""

import dataclasses
from collections.abc import Iterable, Mapping

from dataset.errors import ConfigError, listed, nearest
from dataset.policy import TAKEDOWN_FILE, Takedowns, read_takedowns
from dataset.store import Store


def board_takedowns(
    store: Store, names: Mapping[str, str], *, crawled: Iterable[str] = ()
) -> Takedowns:
    """Reads the takedown list of a home, with every post under its board.

    names: the board of each name of a site or board (`sites.board_names`); crawled: boards that
    the ledger has besides. Raises ConfigError for a name that is neither: a slip of the pen must
    not leave a picture where it is.
    """
    takedowns = read_takedowns(store)
    boards = {**{board: board for board in crawled}, **names}
    faults = [
        f'post {name}/{number}: "{name}" is no site of the registry and no board of the ledger'
        f"{nearest(name, boards)}"
        for name, number in sorted(takedowns.posts)
        if name not in boards
    ]
    if faults:
        raise ConfigError(f"{store.url(TAKEDOWN_FILE)} is not a takedown list:\n{listed(faults)}")
    posts = frozenset((boards[name], number) for name, number in takedowns.posts)
    return dataclasses.replace(takedowns, posts=posts)
