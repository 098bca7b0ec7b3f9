"""The chain from end to end: against the board, twice, and killed in the middle of each stage."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pyarrow.compute as pc
import pytest
from mlflow import MlflowClient
from PIL import Image

from dataset.crops import Crops
from dataset.schemas import FACES, POSTS, read_table
from dataset.store import Store
from pipeline.build import CODE_VERSIONS
from tests.pipeline.conftest import Demo, clean_environment, run
from tests.pipeline.fork_server import WarmOmokage

ROOT = Path(__file__).resolve().parents[2]

STAGES = (
    "crawl/demo", "posts", "faces", "labels", "manifest", "generator", "evaluation", "champion",
)  # fmt: skip
# One stage for each way of keeping what is done: the ledger, shards, a child's checkpoints, and
# the promotion log. Each is killed AFTER_S after its beginning.
KILLED = ("crawl/demo", "faces", "generator", "champion")
AFTER_S = 0.6
LOAD_ELSEWHERE = """
import sys
import mlflow, pandas as pd
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model("models:/avatar-generator@champion")
frame = pd.DataFrame({"labels": ["blonde_hair,blue_eyes"]})
pictures = model.predict(frame, params={"seed": 7, "n": 4})
ours = {"assets", "crawlers", "dataset", "demo", "models", "pipeline", "studio"}
assert not ours & set(sys.modules), ours & set(sys.modules)
pictures.tofile(sys.argv[2])
print(pictures.shape, pictures.dtype)
"""


def tracking_uri(home: Path) -> str:
    return f"sqlite:///{home}/mlflow/mlflow.db"


def test_every_stage_is_run_and_the_first_generator_is_champion(demo: Demo) -> None:
    for stage in (*STAGES, "machine_labels"):
        assert re.search(rf"^✔ {stage} ", demo.output, re.MULTILINE), demo.output
    assert "models:/avatar-generator@champion is version 1" in demo.output
    with Image.open(demo.home / "champion.png") as sheet:
        assert sheet.width > sheet.height / 2 > 64


def test_every_stage_with_a_code_version_says_its_data_version_itself(demo: Demo) -> None:
    """Dagster would take it from the code version, and then what comes after never looks stale."""
    with dg.DagsterInstance.from_config(str(demo.home / "dagster")) as instance:
        for stage, version in CODE_VERSIONS.items():
            event = instance.get_latest_materialization_event(dg.AssetKey(stage))
            assert event is not None, stage
            made = event.asset_materialization
            assert made is not None
            tags = made.tags or {}
            assert tags["dagster/code_version"] == version
            assert tags.get("dagster/data_version_is_user_provided") == "true", (stage, tags)


def test_what_must_be_refused_is_refused_and_nothing_else(demo: Demo) -> None:
    posts = read_table(Store(demo.home), "posts.lance", declared=POSTS)
    kept = posts.filter(pc.is_null(posts["drop_reason"]))
    assert set(kept["rating"].to_pylist()) == {"general"}
    assert kept.num_rows >= 0.85 * posts.num_rows
    reasons = {reason for reason in posts["drop_reason"].to_pylist() if reason}
    assert {"rating", "wrong_md5", "mislabelled", "tag_lineart", "banned"} <= reasons


def test_most_drawn_faces_are_found(demo: Demo) -> None:
    posts = read_table(Store(demo.home), "posts.lance", declared=POSTS)
    faces = read_table(Store(demo.home), "faces.lance", declared=FACES)
    solo = {
        row["sha256"]
        for row in posts.select(["sha256", "drop_reason", "tags_general"]).to_pylist()
        if row["drop_reason"] is None and "solo" in row["tags_general"]
    }
    found = solo & set(faces["sha256"].to_pylist())
    assert len(found) >= 0.95 * len(solo)


def test_there_are_the_23_labels(demo: Demo) -> None:
    labels = json.loads((demo.home / "labels.json").read_text())["labels"]
    assert len(labels) == 23
    assert {"blonde_hair", "blue_eyes", "twintails", "short_hair"} <= set(labels)


@pytest.mark.slow
def test_a_second_run_uses_what_is_unchanged_and_says_so(demo: Demo, warm: WarmOmokage) -> None:
    before = digests(demo.home)
    ended = warm.run(demo.demo_arguments())
    said = ended.stdout + ended.stderr
    assert ended.returncode == 0, said
    for stage in ("crawl/demo", "faces", "generator", "evaluation", "champion"):
        assert re.search(rf"^✔ {stage} .*reused: nothing had changed", said, re.MULTILINE), said
    assert digests(demo.home) == before
    assert "is version 1" in said


def test_status_says_how_far_the_chain_has_come(demo: Demo) -> None:
    lines = run(demo.command("status", "--home", str(demo.home))).stdout
    assert re.search(r"^labels +23: ", lines, re.MULTILINE)
    assert "models:/avatar-generator@champion is version 1" in lines


@pytest.mark.ci
def test_sample_draws_the_same_bytes_for_the_same_seed(
    demo: Demo, warm: WarmOmokage, tmp_path: Path
) -> None:
    options = ["sample", "--home", str(demo.home), "--n", "4", "--seed", "7"]
    options += ["--labels", "blonde_hair,blue_eyes", "--out"]
    grids = []
    for name, started in (("one.png", warm.run), ("two.png", in_a_shell)):
        out = tmp_path / name
        ended = started([*options, str(out)])
        assert ended.returncode == 0, ended.stderr
        grids.append(out.read_bytes())
    assert grids[0] == grids[1]
    with Image.open(tmp_path / "one.png") as grid:
        assert grid.size == (4 * 64, 64)


def in_a_shell(arguments: list[str]) -> "subprocess.CompletedProcess[str]":
    return run([sys.executable, "-m", "pipeline.cli", *arguments])


@pytest.mark.slow
def test_the_tools_of_sample_draw_with_the_champion(
    demo: Demo, warm: WarmOmokage, tmp_path: Path
) -> None:
    sample = ["sample", "--home", str(demo.home)]
    loop, grid, plain = tmp_path / "loop.gif", tmp_path / "grid.png", tmp_path / "plain.png"
    options = ("--n", "2", "--labels", "blonde_hair")
    film = ["--seconds", "0.5", "--fps", "8", "--out", str(loop)]
    ended = warm.run([*sample, "loop", *options, *film])
    assert ended.returncode == 0, ended.stderr
    with Image.open(loop) as drawn:
        assert (drawn.size, getattr(drawn, "n_frames", 0)) == ((128, 64), 4)
    # The champion's folder and its registered program draw the same pictures.
    warm.run([*sample, "grid", *options, "--out", str(grid)])
    warm.run([*sample, *options, "--out", str(plain)])
    with Image.open(grid) as first, Image.open(plain) as second:
        assert np.array_equal(np.asarray(first), np.asarray(second))


@pytest.mark.slow
def test_the_champion_loads_without_this_repository(
    demo: Demo, warm: WarmOmokage, tmp_path: Path
) -> None:
    """With mlflow and torch alone on the path, elsewhere, it draws what `sample` draws."""
    bare = bare_python(tmp_path)
    ended = subprocess.run(
        [bare, "-c", LOAD_ELSEWHERE, tracking_uri(demo.home), str(tmp_path / "pictures")],
        cwd="/",
        env=clean_environment() | {"MLFLOW_DISABLE_TELEMETRY": "true"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.strip().endswith("(4, 64, 64, 3) uint8")
    elsewhere = np.fromfile(tmp_path / "pictures", np.uint8).reshape(4, 64, 64, 3)
    out = tmp_path / "here.png"
    options = ["--labels", "blonde_hair,blue_eyes", "--n", "4", "--seed", "7", "--out", str(out)]
    warm.run(["sample", "--home", str(demo.home), *options])
    with Image.open(out) as grid:
        here = np.asarray(grid).reshape(64, 4, 64, 3).swapaxes(0, 1)
    assert np.array_equal(elsewhere, here)


def bare_python(folder: Path) -> str:
    """Makes an environment that sees the installed packages, but not our editable checkout."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "venv"], check=True)
    (site,) = (folder / "venv" / "lib").glob("python*/site-packages")
    # A path in sys.path, unlike one in a .pth file's reach, has its own .pth files left alone.
    (site / "packages.pth").write_text(next(p for p in sys.path if p.endswith("site-packages")))
    return str(folder / "venv" / "bin" / "python")


@pytest.mark.slow
def test_the_mlflow_project_trains_without_dagster(demo: Demo, tmp_path: Path) -> None:
    home = tmp_path / "home"
    for part in ("manifest", "crops.lance"):
        shutil.copytree(demo.home / part, home / part)
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    programs = str(Path(sys.executable).parent)
    ended = subprocess.run(
        [
            sys.executable, "-m", "mlflow", "run", "mlflow", "-e", "train",
            "--env-manager", "local", "-P", f"home={home}", "-P", "preset=smoke",
        ],
        cwd=ROOT,
        env=clean_environment()
        | {"MLFLOW_TRACKING_URI": uri, "PATH": f"{programs}:{os.environ['PATH']}"},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert (home / "generators/project/generator/generator.safetensors").exists()
    (run_made,) = MlflowClient(tracking_uri=uri).search_runs(["0"])
    assert run_made.info.status == "FINISHED"
    assert run_made.data.params["preset"] == "smoke"
    assert any(name.startswith("train/") for name in run_made.data.metrics)


@pytest.mark.slow
def test_killed_in_the_middle_of_a_stage_it_ends_with_the_same_set(
    demo: Demo, warm: WarmOmokage, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    for made in ("board", "cache"):  # drawings, features: how these are made is another's test
        shutil.copytree(demo.home / made, home / made, copy_function=os.link)
    for stage in KILLED:
        kill_in(stage, warm, demo.demo_arguments(home))
    ended = warm.run(demo.demo_arguments(home))
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert rows_only_in_one(digests(home), digests(demo.home)) == []
    assert digests(home) == digests(demo.home)
    assert sorted(crops(home)) == sorted(crops(demo.home))


def rows_only_in_one(one: dict[str, Any], other: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of posts and faces that stand in one home only, for a readable failure."""
    return [
        row
        for table in ("posts", "faces")
        for here, there in ((one, other), (other, one))
        for row in here[table]
        if row not in there[table]
    ]


def kill_in(
    stage: str,
    omokage: WarmOmokage,
    arguments: list[str],
    *,
    after_s: float = AFTER_S,
    once: str = "",
) -> None:
    """Starts a command and kills it, without a word, shortly after the stage has begun.

    once: how a line begins that the stage says when it is at work, to be waited for.
    """
    running = omokage.start(arguments)
    said = []
    wanted = [f"▶ {stage}", *([once] if once else [])]
    with running.stdout, running.stderr:
        for line in running.stderr:
            said.append(line)
            if line.startswith(wanted[0]):
                wanted.pop(0)
            if not wanted:
                time.sleep(after_s)
                break
        else:
            raise AssertionError(f"{stage} never began:\n{''.join(said)}")
        running.send_signal(signal.SIGKILL)
        assert running.wait() == -signal.SIGKILL


def digests(home: Path) -> dict[str, Any]:
    """What the chain has made, by content: posts, faces, labels, manifest and generator."""
    return digests_of(Store(home))


def digests_of(store: Store) -> dict[str, Any]:
    """As `digests`, of a home whose data may lie elsewhere."""
    posts = read_table(store, "posts.lance", declared=POSTS).drop(["fetched_at"])
    faces = read_table(store, "faces.lance", declared=FACES)
    return {
        "posts": posts.to_pylist(),
        "faces": faces.sort_by("face_id").to_pylist(),
        "labels": store.read_json("labels.json")["digest"],
        "manifest": store.read_json("manifest/current.json")["digest"],
        "generator": store.read_json("generators/current.json")["id"],
    }


def crops(home: Path) -> list[tuple[str, bytes]]:
    store = Store(home)
    rows = read_table(store, "faces.lance", declared=FACES)
    kept = rows.filter(pc.is_valid(rows["crop"]))
    return list(zip(kept["crop"].to_pylist(), Crops(store).read(kept), strict=True))
