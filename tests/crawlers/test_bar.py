"""What a crawl shows in a terminal: a bar, then the summary in words."""

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.board_fixture import serve_collection
from tests.crawlers.conftest import REPOSITORY
from tests.crawlers.tiny import mixed_collection


@pytest.mark.parametrize("dash", [(), ("--tags=-sketch",)], ids=["all", "search with a dash"])
@pytest.mark.ci
def test_a_terminal_shows_a_bar_and_the_summary_and_no_json(
    tmp_path: Path, dash: tuple[str, ...]
) -> None:
    variables = {name: text for name, text in os.environ.items() if "OMOKAGE" not in name}
    with serve_collection(mixed_collection(40)) as board:
        ours, theirs = pty.openpty()  # of a size that is not known
        command = f"{sys.executable} -m pipeline.cli crawl --site demo --home {tmp_path}/home"
        child = subprocess.Popen(
            [*command.split(), *dash],
            cwd=REPOSITORY,
            env=variables | {"OMOKAGE_BOARD_URL": board.url},
            stdout=theirs,
            stderr=theirs,
        )
        os.close(theirs)
        output = read_all(ours)
        assert child.wait(600) == 0, output
    assert re.search(r"crawl demo: +\d+%\|.*\| +40/40 \[.* posts/s\]", output), output
    last, *rest = output.rstrip().splitlines()[-2:]
    assert re.fullmatch(
        r"crawl demo: 40 posts seen, 34 kept, 6 refused; 0\.0 MB in [\d.]+ s \(\d+ posts/s\), "
        r"\d+ API and \d+ media requests",
        last,
    ), output
    assert rest == ["  refused: rating 4, corrupt 1, wrong_md5 1"]


def read_all(descriptor: int) -> str:
    parts = []
    while True:
        try:
            part = os.read(descriptor, 65_536)
        except OSError:  # the other side has gone
            break
        if not part:
            break
        parts.append(part)
    os.close(descriptor)
    return b"".join(parts).decode().replace("\r\n", "\n")
