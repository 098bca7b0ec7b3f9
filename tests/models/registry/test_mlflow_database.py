"""MLflow's database is there whole or not at all, whenever the process that makes it is killed."""

import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from mlflow import MlflowClient

from dataset.errors import StoreError
from models.registry.client import TrackingClient, lay_out

ASK = """
import sys
from models.registry.client import TrackingClient
TrackingClient(uri=sys.argv[1]).experiment_id()
"""


@pytest.mark.slow
def test_killed_in_the_middle_of_the_tables_the_next_one_makes_all_of_them(tmp_path: Path) -> None:
    path = tmp_path / "home" / "mlflow.db"
    uri = f"sqlite:///{path}"
    maker = subprocess.Popen([sys.executable, "-c", ASK, uri])
    deadline = time.monotonic() + 600
    while not list(path.parent.glob("mlflow.db*-journal")) and time.monotonic() < deadline:
        time.sleep(0.001)  # a journal stands while tables are being made
    maker.kill()
    assert maker.wait(600) == -9, "it was killed before it was done"
    assert not path.exists()
    tracking = TrackingClient(uri=uri)
    assert tracking.client().get_experiment(tracking.experiment_id()).name == tracking.experiment
    assert sorted(one.name for one in path.parent.iterdir()) == ["mlflow.db", "mlflow.db.lock"]


def test_of_two_at_once_one_makes_it_and_both_use_it(tmp_path: Path) -> None:
    path = tmp_path / "mlflow.db"
    makers = [threading.Thread(target=lay_out, args=[path]) for _ in range(2)]
    for maker in makers:
        maker.start()
    for maker in makers:
        maker.join()
    client = MlflowClient(f"sqlite:///{path}", registry_uri=f"sqlite:///{path}")
    before = client.create_experiment("kept")
    lay_out(path)
    assert client.get_experiment(before).name == "kept"


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(StoreError, match=r"MLflow's database cannot be made at .*OMOKAGE_HOME"):
        lay_out(tmp_path / "file" / "mlflow.db")
