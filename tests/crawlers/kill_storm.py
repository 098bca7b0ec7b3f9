"""Kills a crawl with SIGKILL at many random points; what it leaves must equal an undisturbed one's.

`python -m tests.crawlers.kill_storm --kills 50 --seed 7`. The board kills the crawl, upon the n-th
request that it sees of it: so the points lie in the work (pages, downloads, storing, settling). One
kill in eight comes at a random moment of the start-up instead, whatever the crawl is doing then.
"""

import argparse
import asyncio
import contextlib
import dataclasses
import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path

import pyarrow.compute as pc
from aiohttp import web

from crawlers.audit import audit
from crawlers.export import PostsTable, export_posts
from crawlers.ledger import Ledger
from crawlers.ledger_file import MARKER
from dataset.schemas import POSTS, read_table
from dataset.store import Store, blob_path
from tests.board_fixture import serve_collection
from tests.crawlers import forkserver
from tests.crawlers.forkserver import Child
from tests.crawlers.tiny import mixed_collection

FAMILIES = {"danbooru": "demo", "moebooru": "demo_moebooru", "gelbooru02": "demo_gelbooru"}
POSTS_A_KILL = 40  # more than a life settles on average, so that work is left for the last one
REQUESTS_A_LIFE = 44  # at most; 16 pictures are under way at a time
START_UP_S = 1.5
ONE_IN = 8  # kills in the start-up
LEAST_POSTS = 60
# Of these posts 250 are listed after the edits, on more pages than a life has requests.
EDITED_POSTS, EDITED_PAGE_SIZE, EDITED_REQUESTS = 500, 10, 12
EDITS, EDIT_RATE = 5, 0.3
TIMEOUT_S = 120


@dataclasses.dataclass
class Storm:
    """What was done: the kills, the lives of the crawl, and every difference that was found."""

    posts: int
    kills: int = 0
    lives: int = 0
    orphans_at_the_end: int = 0
    most_requests: int = 0  # requests for one picture over all lives
    differences: list[str] = dataclasses.field(default_factory=list)


class Executioner:
    """Starts crawls of a board, and kills the one that talks to it upon its n-th request."""

    def __init__(self, family: str, registry: Path, words: str = "") -> None:
        self.family, self.registry, self.words = family, registry, words
        self.url = ""
        self.child: Child | None = None
        self.left = 0  # requests until the end; 0: it lives
        self.delay_s = 0.0
        self.requests: Counter[str] = Counter()

    def start(self, home: Path, *, cold: bool = False) -> Child:
        """Starts a crawl into a home; cold: with the start-up that a kill is to hit."""
        options = ["--site", FAMILIES[self.family], "--home", home, "--sites", self.registry]
        options.append(f"--tags={self.words}")
        variables = {name: text for name, text in os.environ.items() if "OMOKAGE" not in name}
        variables |= {"OMOKAGE_BOARD_URL": self.url, "OMOKAGE_PROGRESS": "off"}
        command = ["-m", "crawlers.run", *map(str, options)]
        return forkserver.start(command, variables, cold=cold, quiet=True)

    @web.middleware
    async def watch(
        self,
        request: web.Request,
        handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
    ) -> web.StreamResponse:
        """Counts the requests, and kills in the course of the one whose turn it is."""
        self.requests[request.path] += 1
        child, self.left = self.child, self.left - 1
        if self.left != 0 or child is None:
            return await handler(request)
        if self.delay_s:  # the answer is on its way already, or its post is being settled
            asyncio.get_running_loop().call_later(self.delay_s, child.kill)
        else:
            child.kill()
        return await handler(request)


def storm(
    folder: Path,
    *,
    kills: int,
    seed: int,
    family: str,
    say: Callable[[str], None],
    edits: bool = False,
) -> Storm:
    """Crawls once undisturbed and once with `kills` kills, and compares what is left.

    edits: the board edits its posts, EDITS times, and what is killed are the refreshes after that.
    """
    rng = random.Random(f"{family}:{seed}")
    count = EDITED_POSTS if edits else max(LEAST_POSTS, kills * POSTS_A_KILL)
    collection, page_size = mixed_collection(count), EDITED_PAGE_SIZE if edits else 20
    most = EDITED_REQUESTS if edits else REQUESTS_A_LIFE
    registry = folder / "sites.toml"
    registry.write_text(f"[{FAMILIES[family]}]\npage_size = {page_size}\nempty_answers = 1\n")
    made = Storm(posts=count)
    homes = {name: folder / name for name in ("undisturbed", "killed")}
    executioner = Executioner(family, registry, "1girl" if edits else "")
    with serve_collection(collection, middlewares=[executioner.watch]) as board:
        executioner.url = board.url
        ended(executioner.start(homes["undisturbed"]))
        if edits:
            ended(executioner.start(homes["killed"]))
        for number in range(EDITS if edits else 1):
            if edits:
                collection = collection.edited(EDIT_RATE, seed=f"{seed} {number}")
                board.now_serves(collection)
                for _ in range(2):
                    ended(executioner.start(homes["undisturbed"]))
            executioner.requests.clear()
            kills_by_now = kills * (number + 1) // EDITS if edits else kills
            while made.kills < kills_by_now:
                made.lives += 1
                if one_life(executioner, homes["killed"], rng, most=most):
                    made.kills += 1
                    say(f"killed {made.kills}/{kills}, {settled(homes['killed'])} posts settled")
                elif not edits:  # a refresh reads again what was taken, however often
                    made.differences.append(
                        f"the crawl was complete after {made.kills} of {kills} kills"
                    )
                    break
            executioner.left = 0
            for _ in range(2 if edits else 1):
                made.lives += 1
                ended(executioner.start(homes["killed"]))
        media = [count for path, count in executioner.requests.items() if path.startswith("/media")]
        made.most_requests = max(media, default=0)
    site = FAMILIES[family]
    made.orphans_at_the_end = len(audit(Store(homes["killed"]), hashed=0).orphans)
    tables = {name: export_posts(Store(home), [site]) for name, home in homes.items()}
    for home in homes.values():
        while export_posts(Store(home), [site]).swept:
            pass  # a build moves some of the blobs that posts gave up
    made.differences += differences(homes, tables, count)
    return made


def one_life(executioner: Executioner, home: Path, rng: random.Random, *, most: int) -> bool:
    """Starts a crawl that has `most` requests at most; tells whether it was killed."""
    in_start_up = rng.randrange(ONE_IN) == 0
    executioner.left = 0 if in_start_up else rng.randint(1, most)
    executioner.delay_s = rng.choice([0.0, rng.uniform(0, 0.05)])
    child = executioner.child = executioner.start(home, cold=in_start_up)
    if in_start_up:
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(rng.uniform(0.0, START_UP_S))
        child.kill()
    code = child.wait(TIMEOUT_S)
    if code not in (0, -signal.SIGKILL):
        raise RuntimeError(f"a crawl ended with {code}")
    return code != 0


def ended(child: Child) -> None:
    """Waits for a crawl that must go well."""
    if code := child.wait(TIMEOUT_S):
        raise RuntimeError(f"a crawl that nobody killed ended with {code}")


def settled(home: Path) -> int:
    """How many posts are settled in a home."""
    if not (home / "ledger.sqlite").exists():
        return 0
    with Ledger(home / "ledger.sqlite") as ledger:
        counts = [ledger.count(board) for board in ledger.boards()]
    return sum(count["kept"] + count["refused"] for count in counts)


def differences(homes: dict[str, Path], tables: dict[str, PostsTable], posts: int) -> list[str]:
    """Returns a sentence for everything in which the homes differ, or are not as they should be."""
    found = []
    one, two = (table_of(home) for home in homes.values())
    if not one.equals(two):
        found.append(f"posts.lance differs: {one.num_rows} and {two.num_rows} rows")
    if len({made.digest for made in tables.values()}) != 1:
        found.append("the digests of the tables differ")
    for name, home in homes.items():
        table = table_of(home)
        if table.num_rows != posts or pc.count_distinct(table["post_id"]).as_py() != posts:
            found.append(f"{name}: {table.num_rows} rows, {posts} posts wanted, each once")
        if tables[name].requeued or pc.any(pc.equal(table["drop_reason"], "not_fetched")).as_py():
            found.append(f"{name}: posts are left without their pictures")
        found += [f"{name}: {fault}" for fault in blob_faults(home)]
    return found


def table_of(home: Path):  # type: ignore[no-untyped-def] # pyarrow has no types
    """The posts table without the moment at which each record was read."""
    return read_table(Store(home), "posts.lance", declared=POSTS).drop(["fetched_at"])


def blob_faults(home: Path) -> list[str]:
    """Returns a sentence for each file under blobs/ that is not a blob of the table, and back."""
    table = table_of(home)
    pairs = zip(table["sha256"].to_pylist(), table["ext"].to_pylist(), strict=True)
    named = {blob_path(sha256, ext) for sha256, ext in pairs if sha256}
    there = {str(path.relative_to(home)) for path in (home / "blobs").rglob("*") if path.is_file()}
    there.remove(MARKER)
    faults = [f"{path} is named by no post" for path in sorted(there - named)]
    faults += [f"{path} is missing" for path in sorted(named - there)]
    for path in sorted(there & named):
        if hashlib.sha256((home / path).read_bytes()).hexdigest() != Path(path).stem:
            faults.append(f"{path} has other bytes than its name says")
    return faults


def main(arguments: Sequence[str] | None = None) -> int:
    """The command line; 1 if anything differs."""
    parser = argparse.ArgumentParser(
        prog="python -m tests.crawlers.kill_storm", description=(__doc__ or "").split("\n")[0]
    )
    parser.add_argument("--kills", type=int, default=50, metavar="N", help="default: %(default)s")
    parser.add_argument("--seed", type=int, default=7, metavar="N", help="default: %(default)s")
    parser.add_argument(
        "--family", choices=FAMILIES, default="danbooru", help="dialect (default: %(default)s)"
    )
    parser.add_argument("--edits", action="store_true", help="kill refreshes of an edited board")
    options = parser.parse_args(arguments)

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        made = storm(
            Path(folder),
            kills=options.kills,
            seed=options.seed,
            family=options.family,
            say=say,
            edits=options.edits,
        )
    for difference in made.differences:
        say(f"differs: {difference}")
    print(
        f"{options.family}, seed {options.seed}: {made.kills} kills in {made.lives} lives over "
        f"{made.posts:,} posts, {time.monotonic() - started:.0f} s; {made.orphans_at_the_end} "
        f"orphans swept at the end; a picture was requested {made.most_requests} times at most; "
        f"{len(made.differences)} differences"
    )
    return 1 if made.differences else 0


if __name__ == "__main__":
    sys.exit(main())
