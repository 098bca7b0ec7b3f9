"""Posts a second and peak memory of our crawl, beside gallery-dl's on the same posts.

`python -m benchmarks.crawl` serves made posts from a loopback board in a process of its own, with
no interval between requests, and lets both programs fetch all of them into fresh folders, by turns:
once with a board that answers after some milliseconds, once with one that answers at once (bare).
Both must end with the very same files, by md5, and both write each post's metadata. Rates count the
whole run of a program, start-up included; the last line on stdout is JSON.
"""

import argparse
import hashlib
import json
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.process import BenchmarkError, Cost, board, run

SMALL_PX = 64  # pictures of the memory runs: there it is the number of posts that counts
WORDS = "rating:g solo"

GALLERY_DL = {
    "extractor": {
        "Danbooru": {"omokage": {"root": "URL"}},
        "base-directory": "FOLDER",
        "directory": [],
        "filename": "{id}.{extension}",
        "archive": None,
        "cookies": None,
        "sleep": 0,
        "sleep-request": 0,
        "sleep-extractor": 0,
        "postprocessors": [{"name": "metadata", "filename": "{id}.json"}],
    },
    "downloader": {"adjust-extensions": False, "mtime": False, "part": False},
    "cache": {"file": None},
    "output": {"mode": "null"},
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark and returns the exit code."""
    options = _options(arguments)
    folder = Path(options.folder).resolve()
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(prefix="crawl-", dir=folder) as scratch:
            result = _measure(options, Path(scratch))
    except BenchmarkError as error:
        print(f"benchmark: {error}", file=sys.stderr)
        return 1
    print(json.dumps(result), flush=True)
    return 0


def _measure(options: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Returns everything that the last line says."""
    width, height = options.size
    made: dict[str, Any] = {
        "benchmark": "crawl",
        "unit": "posts/s",
        "posts": options.posts,
        "picture": f"{width}x{height} jpg",
        "runs": options.runs,
        "device": f"cpu x{len(os.sched_getaffinity(0))}",
        "gallery_dl_version": _version("gallery-dl"),
        "gallery_dl_settings": "no sleeps, no .part files, metadata written",
        "answer_ms": options.answer_ms,
    }
    made |= _speed(options, scratch, answer_ms=options.answer_ms)
    if options.answer_ms:
        # Nothing to wait for: what is left is CPU, where we check each picture and they do not.
        bare = _speed(options, scratch, answer_ms=0.0)
        made |= {f"bare_{key}": bare[key] for key in ("value", "gallery_dl", "ratio", "cpu_s")}
    return made | _memory(options, scratch)


def _speed(options: argparse.Namespace, scratch: Path, *, answer_ms: float) -> dict[str, Any]:
    """Runs both programs by turns; returns medians."""
    ours: list[Cost] = []
    theirs: list[Cost] = []
    width, height = options.size
    posts = options.posts
    with board(posts=posts, width=width, height=height, answer_ms=answer_ms) as url:
        for number in range(1, options.runs + 1):
            _say(
                f"run {number} of {options.runs}: {posts:,} posts of {width}x{height} px, answered "
                f"after {answer_ms:g} ms"
            )
            ours.append(_omokage(url, scratch / "ours", posts=posts))
            theirs.append(_gallery_dl(url, scratch / "theirs"))
            check_same(scratch / "ours" / "blobs", scratch / "theirs", posts=posts)
            size_bytes = sum(file.stat().st_size for file in _pictures(scratch / "theirs"))
            shutil.rmtree(scratch / "ours")
            shutil.rmtree(scratch / "theirs")
    rate, other = _rate(posts, ours), _rate(posts, theirs)
    return {
        "value": round(rate, 1),
        "stdev": round(_stdev([posts / cost.seconds for cost in ours]), 1),
        "gallery_dl": round(other, 1),
        "ratio": round(rate / other, 2),
        "cpu_s": round(statistics.median(cost.cpu_s for cost in ours), 2),
        "gallery_dl_cpu_s": round(statistics.median(cost.cpu_s for cost in theirs), 2),
        "peak_mb": round(max(cost.peak_mb for cost in ours), 1),
        "picture_kb": round(size_bytes / posts / 1000, 1),
        "gallery_dl_peak_mb": round(max(cost.peak_mb for cost in theirs), 1),
    }


def _memory(options: argparse.Namespace, scratch: Path) -> dict[str, Any]:
    """Crawls few and many small pictures; returns both peaks and their ratio."""
    made: dict[str, Any] = {}
    peaks: list[float] = []
    for posts in options.memory_posts:
        _say(f"memory: {posts:,} posts of {SMALL_PX}x{SMALL_PX} px")
        with board(posts=posts, width=SMALL_PX, height=SMALL_PX) as url:
            cost = _omokage(url, scratch / "ours", posts=posts)
        shutil.rmtree(scratch / "ours")
        peaks.append(cost.peak_mb)
        made[f"peak_mb_{posts}"] = round(cost.peak_mb, 1)
        made[f"small_posts_per_s_{posts}"] = round(posts / cost.seconds, 1)
    if peaks:
        made["memory_ratio"] = round(max(peaks) / peaks[0], 3)
    return made


def _omokage(url: str, home: Path, *, posts: int) -> Cost:
    """Crawls all posts with our crawler; raises BenchmarkError if it kept another number."""
    log = home.with_suffix(".log")
    variables = {"OMOKAGE_BOARD_URL": url, "OMOKAGE_PROGRESS": "off"}
    # The packaged registry: the user's own is ignored.
    variables |= {"OMOKAGE_SITES_FILE": "", "OMOKAGE_HOME": str(home)}
    command = [sys.executable, "-m", "crawlers.run", "--site", "demo", "--tags", WORDS]
    cost = run([*command, "--home", str(home)], log=log, variables=variables)
    summary = json.loads(log.read_text().splitlines()[-1])
    if summary["kept"] != posts:
        raise BenchmarkError(f"our crawl kept {summary['kept']:,} of {posts:,} posts: {summary}")
    _say(f"  omokage     {posts / cost.seconds:7.1f} posts/s  {cost.peak_mb:6.1f} MB")
    return cost


def _gallery_dl(url: str, folder: Path) -> Cost:
    """Fetches all posts with gallery-dl, files named by the post's number."""
    root = f"{url}/danbooru"
    folder.mkdir()
    config = folder.with_suffix(".config.json")
    settings = json.dumps(GALLERY_DL).replace("URL", root).replace("FOLDER", str(folder))
    config.write_text(settings, encoding="utf-8")
    command = [sys.executable, "-m", "gallery_dl", "--config-ignore", "--config", str(config)]
    search = f"{root}/posts?tags={WORDS.replace(' ', '+')}"
    cost = run([*command, search], log=folder.with_suffix(".log"))
    posts = len(_pictures(folder))
    _say(f"  gallery-dl  {posts / cost.seconds:7.1f} posts/s  {cost.peak_mb:6.1f} MB")
    return cost


def check_same(ours: Path, theirs: Path, *, posts: int) -> None:
    """Raises BenchmarkError unless both folders hold the same `posts` files with metadata."""
    one, other = _md5s(ours), _md5s(theirs)
    records = len(list(theirs.glob("*.json")))
    if len(one) != posts or one != other or records != posts:
        raise BenchmarkError(
            f"the work was not the same: {posts:,} posts; ours {len(one):,} files, gallery-dl's "
            f"{len(other):,} with {records:,} records, {len(one & other):,} files in both"
        )


def _md5s(folder: Path) -> set[str]:
    return {
        hashlib.md5(file.read_bytes(), usedforsecurity=False).hexdigest()
        for file in _pictures(folder)
    }


def _pictures(folder: Path) -> list[Path]:
    return [file for file in folder.rglob("*.jpg") if file.is_file()]


def _rate(posts: int, costs: Sequence[Cost]) -> float:
    return posts / statistics.median(cost.seconds for cost in costs)


def _stdev(values: Sequence[float]) -> float:
    return statistics.stdev(values) if len(values) > 1 else 0.0


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError as error:
        raise BenchmarkError(f"{package} is not installed: it comes with the dev extra") from error


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.crawl",
        description="Measures our crawl beside gallery-dl's on the same posts of a loopback board.",
        epilog="example: python -m benchmarks.crawl --posts 2000 --runs 3",
    )
    parser.add_argument(
        "--posts", type=_positive, default=2000, metavar="N", help="posts a run (default: 2000)"
    )
    parser.add_argument(
        "--runs", type=_positive, default=3, metavar="N", help="runs of each side (default: 3)"
    )
    parser.add_argument(
        "--size",
        type=_size,
        default=(600, 800),
        metavar="WxH",
        help="pixels of a picture (default: 600x800)",
    )
    parser.add_argument(
        "--memory-posts",
        type=_numbers,
        default=[1000, 20000],
        metavar="N,N",
        help="crawls whose peak memory is compared (default: 1000,20000; none: empty)",
    )
    parser.add_argument(
        "--answer-ms",
        type=_milliseconds,
        default=20.0,
        metavar="MS",
        help="what the board lets pass before each answer, as a real one some hundred kilometres "
        "away does; above 0, a second comparison with 0 follows (default: 20)",
    )
    parser.add_argument(
        "--folder",
        default="var/benchmarks",
        metavar="DIR",
        help="where scratch folders are made and removed (default: var/benchmarks)",
    )
    return parser.parse_args(arguments)


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f'"{text}" is not a whole number above 0')
    return int(text)


def _milliseconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0.0 <= value <= 10_000.0:
        raise argparse.ArgumentTypeError(f'"{text}" is not a number from 0 to 10000')
    return value


def _numbers(text: str) -> list[int]:
    return [_positive(part) for part in text.split(",") if part]


def _size(text: str) -> tuple[int, int]:
    width, x, height = text.partition("x")
    if not x:
        raise argparse.ArgumentTypeError(f'"{text}" is no size such as 600x800')
    return _positive(width), _positive(height)


if __name__ == "__main__":
    sys.exit(main())
