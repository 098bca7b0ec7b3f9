"""The services of deploy/compose.yaml work together, as processes of this machine.

Each is started by its own command, environment and health check, in the order of its dependencies.
What only a Docker host can show: the image, its network, volumes and limits.
"""

import contextlib
import graphlib
import os
import shutil
import sys
import urllib.parse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
import sqlalchemy
from gradio_client import Client

from pipeline.servers import wait_until_answering
from tests.deploy.compose import Machine, compose, machine
from tests.pipeline.conftest import POST_COUNT, Demo
from tests.pipeline.postgres import PASSWORD, commands, missing, postgres, programs
from tests.pipeline.up_servers import Servers
from tests.waiting import wait_for

pytest.importorskip("moto")
pytest.importorskip("s3fs")
pytestmark = [
    pytest.mark.slow,  # eight servers, and the chain on them
    pytest.mark.skipif(bool(missing()), reason=missing()),
]

SECRET = "opensesamebucket"
GIVEN = {
    "POSTGRES_PASSWORD": PASSWORD,
    "AWS_ACCESS_KEY_ID": "tests",
    "AWS_SECRET_ACCESS_KEY": SECRET,
    "DEMO_POSTS": str(POST_COUNT),
    "OMOKAGE_COMPUTE": "threads:1",
}
SMALL: dict[str, dict[str, Any]] = {
    "faces": {"mode": "fast"},
    "manifest": {"eval_frac": 0.12},
    "generator": {"preset": "smoke"},
    "evaluation": {"fakes": 64, "repeats": 2, "flips": 1},
}
OURS = ("OMOKAGE_", "MLFLOW_", "DAGSTER_", "AWS_", "PG")


@pytest.fixture
def deployed(demo: Demo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Machine]:
    """All services but Ray's, healthy."""
    for name in [name for name in os.environ if name.startswith(OURS)]:
        monkeypatch.delenv(name)  # a container has what compose.yaml gives it
    tools = [str(Path(sys.executable).parent), str(programs()), os.environ["PATH"]]
    monkeypatch.setenv("PATH", os.pathsep.join(tools))
    loaded = compose(GIVEN)
    services = {
        name: service
        for name, service in loaded["services"].items()
        if "ray" not in service.get("profiles", [])
    }
    needs = {name: service.get("depends_on", {}) for name, service in services.items()}
    with postgres("dagster") as (address,):
        with database(address) as connection:
            connection.execute(sqlalchemy.text(loaded["configs"]["databases"]["content"]))
        port = urllib.parse.urlsplit(address).port or 0
        with machine(services, tmp_path, postgres=port) as here:
            for made, place in (("board/drawn", "state"), ("cache", "scratch")):
                folder = here.folder / place / made
                shutil.copytree(demo.home / made, folder, copy_function=os.link)
            for name in graphlib.TopologicalSorter(needs).static_order():
                if name == "s3":
                    start_s3(here)
                elif name != "postgres":
                    here.start(name)
            for name in services.keys() - {"create-bucket"}:  # a job, which has ended
                here.wait_until_healthy(name)
            yield here


def start_s3(here: Machine) -> None:
    """Starts an S3 server in the place of the image's, which has a health check of its own."""
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1"]
    here.start("s3", instead=[*command, "-p", str(here.ports["s3"])])
    wait_until_answering(here.started["s3"], f"{here.url('s3')}/moto-api", timeout_s=600)
    here.services["s3"]["healthcheck"]["test"] = ["CMD", "true"]


@contextlib.contextmanager
def database(address: str) -> Iterator[sqlalchemy.Connection]:
    """Yields a connection each of whose statements is a transaction."""
    engine = sqlalchemy.create_engine(address, isolation_level="AUTOCOMMIT")
    with engine.connect() as connection:
        yield connection
    engine.dispose()


def test_the_chain_runs_on_the_composed_services(deployed: Machine) -> None:
    process = deployed.started["code"].process
    assert process is not None
    pages = [deployed.url(name) for name in ("webserver", "mlflow", "studio")]
    servers = Servers(process, deployed.folder, *pages)
    run_id = servers.launch("everything", **SMALL)
    shown: set[str] = set()

    def has_ended() -> bool:
        shown.update(commands())
        return servers.status(run_id) in ("SUCCESS", "FAILURE", "CANCELED")

    wait_for(has_ended, f"run {run_id} never ended", poll_s=1.0)
    captured = deployed.folder / "state/dagster/storage"
    output = [path.read_text(errors="replace") for path in captured.rglob("*.err")]
    assert servers.status(run_id) == "SUCCESS", "\n".join(output)
    assert output, "the output of a run is captured in the volume that the web server reads"

    # Rows in both databases, objects in the bucket.
    with database(deployed.environment("code")["DAGSTER_POSTGRES_URL"]) as connection:
        made = connection.execute(
            sqlalchemy.text("SELECT DISTINCT asset_key FROM event_logs WHERE run_id = :run"),
            {"run": run_id},
        )
        assert {'["crawl", "demo"]', '["faces"]', '["champion"]'} <= {key for (key,) in made}
    with database(deployed.environment("mlflow")["MLFLOW_BACKEND_STORE_URI"]) as connection:
        aliases = connection.execute(sqlalchemy.text("SELECT alias FROM registered_model_aliases"))
        assert "champion" in [alias for (alias,) in aliases]
    os.environ.update(
        {n: v for n, v in deployed.environment("code").items() if n.startswith("AWS_")}
    )  # undone by environment_as_before
    objects = fsspec.filesystem("s3", use_listings_cache=False).find("omokage")
    for start in ("home/blobs/", "home/posts.lance/", "home/generators/", "mlflow/"):
        assert [name for name in objects if name.startswith(f"omokage/{start}")], start
    assert not list((deployed.folder / "state").rglob("*.db"))

    (drawn,) = Client(servers.studio, verbose=False).predict(seed=5, api_name="/draw")
    assert drawn["seed"] == 5
    assert Path(drawn["picture"]).read_bytes().startswith(b"\x89PNG")
    text = "\n".join(shown)
    assert "models.train" in text
    assert PASSWORD not in text
    assert SECRET not in text
