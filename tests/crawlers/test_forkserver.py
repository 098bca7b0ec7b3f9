"""A child of the fork server behaves like a new interpreter."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.crawlers.forkserver import Child, start

REPORT = """
import json, os, signal, sys, threading
print(json.dumps({
    "argv": sys.argv,
    "name": __name__,
    "main": sys.modules["__main__"].__dict__ is globals(),
    "path": sys.path,
    "folder": os.getcwd(),
    "env": dict(os.environ),
    "handlers": [str(signal.getsignal(n)) for n in (signal.SIGINT, signal.SIGTERM)],
    "threads": threading.active_count(),
    "reactor": "twisted.internet.reactor" in sys.modules,
    "crawl": "crawlers.run" in sys.modules,
    "terminal": sys.stdout.isatty(),
    "encodings": [sys.stdout.encoding, sys.stderr.encoding],
}))
print("dödö", file=sys.stderr)
sys.exit(7)
"""
# A folder, since an interrupt within a file's closing would be swallowed; short sleeps, since one
# that comes just before a sleep does not end it.
SLEEP = """
import os, sys, time
os.mkdir(f"{sys.argv[1]}/{os.getpid()}")
while True:
    time.sleep(0.05)
"""


def both(*arguments: str, **variables: str) -> list[Child]:
    # Without a locale, a new interpreter would set its own.
    env = {"PATH": os.environ["PATH"], "LC_ALL": "C.UTF-8", **variables}
    return [start(arguments, env, cold=cold) for cold in (True, False)]


def test_a_forked_program_finds_what_a_new_interpreter_finds() -> None:
    cold, warm = both("-c", REPORT, "--option", "wörd", GIVEN="this")
    reports = [json.loads(child.communicate(timeout=600)[0]) for child in (cold, warm)]
    assert reports[0] == reports[1]
    assert reports[0]["argv"] == ["-c", "--option", "wörd"]
    assert reports[0]["env"]["GIVEN"] == "this"
    assert cold.returncode == warm.returncode == 7


def test_a_forked_module_fails_in_the_same_words() -> None:
    cold, warm = both("-m", "crawlers.run", "--limit", "many")
    outputs = [child.communicate(timeout=600) for child in (cold, warm)]
    assert outputs[0] == outputs[1]
    assert "the following arguments" in outputs[0][1] or '"many" is not' in outputs[0][1]
    assert cold.returncode == warm.returncode == 2


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_a_signal_ends_a_forked_program_as_it_ends_a_new_one(
    tmp_path: Path, number: signal.Signals
) -> None:
    children = both("-c", SLEEP, str(tmp_path))
    for child in children:
        with pytest.raises(subprocess.TimeoutExpired):
            child.wait(timeout=0.01)
        assert child.poll() is None
    until = time.monotonic() + 600
    while {path.name for path in tmp_path.iterdir()} != {str(child.pid) for child in children}:
        assert time.monotonic() < until, "they never came"
        time.sleep(0.01)
    for child in children:
        child.send_signal(number)
    assert [child.wait(timeout=600) for child in children] == [-number, -number]
    for child in children:
        child.kill()  # it has gone: nothing happens
    traces = ["KeyboardInterrupt" in child.communicate(timeout=600)[1] for child in children]
    assert traces == [number == signal.SIGINT] * 2


def test_a_lot_of_output_does_not_block_a_forked_program() -> None:
    code = "import sys; sys.stdout.write('x' * 3_000_000); sys.stderr.write('y' * 3_000_000)"
    child = start(["-c", code], os.environ)
    assert child.wait(timeout=600) == 0
    out, err = child.communicate(timeout=600)
    assert (len(out), len(err)) == (3_000_000, 3_000_000)
    quiet = start(["-c", code], os.environ, quiet=True)
    assert quiet.communicate(timeout=600) in (("", ""), (None, None))
    assert quiet.returncode == 0


def test_each_forked_program_ends_in_its_own_time() -> None:
    slow, quick = (start(["-c", f"import time; time.sleep({s})"], os.environ) for s in (900, 0))
    assert quick.wait(timeout=600) == 0
    assert slow.poll() is None
    slow.kill()
    assert slow.wait(timeout=600) == -signal.SIGKILL
