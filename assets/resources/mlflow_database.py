"""MLflow's SQLite file, laid out under another name first: half of one can never be used."""

import fcntl
from pathlib import Path

from dataset.errors import StoreError

SQLITE = "sqlite:///"  # begins the address of such a file


def lay_out(path: Path, *, artifacts: str = "") -> None:
    """Makes MLflow's database at `path` unless there is one; whole, or not at all.

    MLflow makes its tables in a hundred steps that it cannot go on with: where a process was killed
    between them, every later one fails on a table that is there already. Of two that come at once
    one waits for the other. artifacts: root of MLflow's own experiment "Default", by default a
    folder beside the database. Raises StoreError if the folder cannot be written.
    """
    if path.exists():
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.with_name(f"{path.name}.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not path.exists():
                _make(path, artifacts or (path.parent / "artifacts").as_uri())
    except OSError as error:
        raise StoreError(
            f"MLflow's database cannot be made at {path}: {error.strerror or error}; set "
            "OMOKAGE_HOME to a folder that can be written"
        ) from error


def _make(path: Path, artifacts: str) -> None:
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore  # slow to import

    unfinished = path.with_name(f"{path.name}.unfinished")
    for left in (unfinished, unfinished.with_name(f"{unfinished.name}-journal")):
        left.unlink(missing_ok=True)  # by one that was killed
    store = SqlAlchemyStore(f"{SQLITE}{unfinished}", artifacts)  # type: ignore[no-untyped-call]
    store.engine.dispose()
    unfinished.rename(path)
