"""A PostgreSQL server for a test: started in a folder of its own, gone when the block ends."""

import contextlib
import importlib.util
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil

from pipeline.servers import LOOPBACK, free_port

USER, PASSWORD = "omokage", "opensesame"
DRIVERS = ("dagster_postgres", "psycopg2")


def missing() -> str:
    """Why no server can be started here; "" if one can."""
    absent = [name for name in DRIVERS if importlib.util.find_spec(name) is None]
    if absent:
        return f"{', '.join(absent)} not installed: pip install omokage[postgres]"
    return "" if programs() else "no PostgreSQL server is installed (Debian: postgresql)"


def programs() -> Path | None:
    """The folder of the newest pg_ctl, which Debian keeps off the path."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/pg_ctl"))
    on_path = shutil.which("pg_ctl")
    return found[-1].parent if found else Path(on_path).parent if on_path else None


@contextlib.contextmanager
def postgres(*databases: str) -> Iterator[list[str]]:
    """Starts a server with these databases; yields the address of each, password included."""
    tools, port = programs(), free_port()
    assert tools is not None
    folder = Path(tempfile.mkdtemp(prefix="omokage-postgres-"))
    secret = folder / "password"
    secret.write_text(PASSWORD)
    user = None
    if os.geteuid() == 0:  # whom PostgreSQL refuses
        user = "nobody"
        for path in (folder, secret):
            shutil.chown(path, user)

    def run(name: str, *words: str, **variables: str) -> None:
        subprocess.run(
            [tools / name, *words],
            check=True, stdout=subprocess.DEVNULL, cwd=folder, timeout=120,
            env={**os.environ, "PGDATA": str(folder / "data"), **variables}, user=user,
        )  # fmt: skip

    run("initdb", "-U", USER, "-A", "scram-sha-256", f"--pwfile={secret}", "--no-sync")
    try:
        words = f"-p {port} -h {LOOPBACK} -k {folder} -c fsync=off"
        run("pg_ctl", "start", "-w", "-o", words, "-l", str(folder / "log"))
        for name in databases:
            run("createdb", "-h", LOOPBACK, "-p", str(port), "-U", USER, name, PGPASSWORD=PASSWORD)
        address = f"postgresql+psycopg2://{USER}:{PASSWORD}@{LOOPBACK}:{port}"
        yield [f"{address}/{name}" for name in databases]
    finally:
        run("pg_ctl", "stop", "-m", "immediate")
        shutil.rmtree(folder)


def commands() -> list[str]:
    """The command lines of what this process has started; one that has just ended has none."""
    found = []
    for one in psutil.Process().children(recursive=True):
        with contextlib.suppress(psutil.NoSuchProcess):  # a zombie is one too
            found.append(" ".join(one.cmdline()))
    return found
