"""`omokage gc` on a home of ten trainings: it frees what it says; what is needed still opens."""

import dataclasses
import os
import re
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import torch
from click.testing import CliRunner

from dataset import tables
from dataset.crops import CROPS, CROPS_PATH
from dataset.errors import OmokageError, UsageError
from dataset.manifest import load_manifest, read_split
from dataset.packed import pack
from dataset.store import Store, file_lock
from models.io.generators import load_generator
from models.registry.client import TrackingClient
from models.registry.program import version_files
from models.registry.promotion import CHAMPION, PREVIOUS, ROLLED_BACK
from models.registry.retention import JUDGED_ON
from pipeline import retention
from pipeline.build import tracking_of
from pipeline.cli import cli
from pipeline.instance import alone_in, opened_instance, prepare_home
from pipeline.retention import DAGSTER_RUN, Garbage, gc_job
from pipeline.settings import Settings, read_settings
from tests.models.homes import write_manifest
from tests.models.small_generators import small_generator, write_generator

DAY_S = 86_400.0
CHAMPIONS = {PREVIOUS: 1, CHAMPION: 2}  # number of each one's training
LEFT = "left"  # a version without an alias, that was rolled back
REGISTERED = {**CHAMPIONS, LEFT: 5}
KEEP = 3
FOLDERS = ("generators", "evaluations", "manifest", "packed")


@dg.job(name="work")
def work() -> None:
    """A run without steps."""


def omokage(home: Path, *arguments: str) -> str:
    result = CliRunner().invoke(cli, [*arguments, "--home", str(home)])
    if result.exception is not None:
        raise result.exception
    return result.output


def files_of(root: Path) -> dict[str, int]:
    """The sizes of all files but locks, and databases, which change when they are read."""
    return {
        path.relative_to(root).as_posix(): path.stat().st_size
        for path in root.rglob("*")
        if path.is_file() and path.suffix not in {".lock"} and ".db" not in path.name
    }


@dataclass
class OldHome:
    """Ten trainings on ten manifests, of 20 to 2 days ago; two of them are registered."""

    root: Path
    settings: Settings
    store: Store
    tracking: TrackingClient
    generators: list[str]  # folders, the oldest first
    manifests: list[str]

    def garbage(self, keep: int = KEEP) -> Garbage:
        return Garbage.of(self.store, self.tracking, None, keep=keep)

    def opens(self) -> None:
        """Champion and previous draw from their folder and from the registry; manifests read."""
        for alias, number in CHAMPIONS.items():
            version = self.tracking.holder(alias)
            assert version is not None
            with version_files(self.store, self.tracking, version) as files:
                assert files.is_training
                network = load_generator(self.store.url(files.folder))
                with torch.no_grad():
                    assert (
                        network(torch.zeros(1, network.spec.z_dim), torch.zeros(1, 3)).shape[1] == 3
                    )
            assert read_split(
                self.store, load_manifest(self.store, self.manifests[number]), "train"
            )
        read_split(self.store, load_manifest(self.store, None), "eval")
        (rolled_back,) = self.tracking.versions({ROLLED_BACK: "green skin"})
        with version_files(self.store, self.tracking, rolled_back) as files:
            load_generator(files.folder if not files.is_training else self.store.url(files.folder))


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[OldHome]:
    """The home that each test gets a copy of."""
    folder = tmp_path_factory.mktemp("made")
    with pytest.MonkeyPatch.context() as patch:
        yield make_home(folder / "home", folder / "network", patch)


@pytest.fixture
def home(made: OldHome, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> OldHome:
    root = tmp_path / "home"
    shutil.copytree(made.root, root)
    settings = settings_of(root, monkeypatch)
    tracking = tracking_of(settings).open()
    return dataclasses.replace(
        made, root=root, settings=settings, store=Store(settings.home), tracking=tracking
    )


def settings_of(root: Path, monkeypatch: pytest.MonkeyPatch) -> Settings:
    for name in list(os.environ):
        if name.startswith(("OMOKAGE_", "MLFLOW_", "DAGSTER_")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("OMOKAGE_PROGRESS", "off")
    settings = read_settings({}, home=str(root))
    for name, text in settings.environment().items():
        monkeypatch.setenv(name, text)
    return settings


def make_home(root: Path, first: Path, monkeypatch: pytest.MonkeyPatch) -> OldHome:
    settings = settings_of(root, monkeypatch)
    store, tracking = prepare_home(settings), tracking_of(settings).open()
    write_generator(first, small_generator("stylegan2"))
    made = OldHome(root, settings, store, tracking, [], [])
    for number in range(10):
        digest = write_manifest(root, train=6 + number, evaluated=4)
        pack(store, load_manifest(store, None), "train", resolution_px=32)
        folder, judged = f"generators/{digest[:12]}-{number:012x}", f"{digest[:12]}-{'e' * 12}"
        checkpoint, facts = f"{folder}/checkpoints/{number:010d}", {"manifest_digest": digest}
        origin = {}
        if number == 9:
            origin = {
                "origin": {"folder": made.generators[3], "manifest_digest": made.manifests[3]}
            }
        shutil.copytree(first, root / folder / "generator")
        store.write_json(f"{folder}/generator/train.json", facts | origin)
        store.write_json(f"{checkpoint}/state.json", facts)
        store.write_bytes(f"{checkpoint}/state.safetensors", bytes(50_000))
        store.write_json(f"{folder}/evaluation/{judged}/evaluation.json", facts)
        store.write_json(f"evaluations/{number:012x}/{judged}/evaluation.json", facts)
        tags = {"omokage.manifest": digest, "omokage.dagster_run": f"run-{number}"}
        run = tracking.run_for(folder.removeprefix("generators/"), name=folder, tags=tags)
        tracking.log_picture(run, "grid.png", bytes(1000))
        made.generators.append(folder)
        made.manifests.append(digest)
        for alias in [alias for alias, one in REGISTERED.items() if one == number]:
            source = root / "mlflow" / "artifacts" / alias
            shutil.copytree(first, source)
            tags = {"omokage.folder": folder, "omokage.manifest": digest}
            tags |= {ROLLED_BACK: "green skin"} if alias == LEFT else {}
            version = tracking.register(
                source.as_uri(), run_id=run, tags=tags, description="", model_page=""
            )
            if alias != LEFT:
                tracking.set_alias(alias, str(version.version))
    current = {"id": "9", "folder": folder, "images_seen": 9, "manifest": digest}
    store.write_json("generators/current.json", current)
    store.write_bytes("generators/notes.txt", b"mine")
    store.write_bytes(f"{made.generators[0]}/notes.txt", b"mine too")
    store.write_bytes("blobs/ab/cd/abcd.png", b"a picture")
    for number, names in enumerate(zip(made.generators, made.manifests, strict=True)):
        for path in [one for top in FOLDERS for one in (root / top).rglob("*")]:
            if f"/{number:012x}/" in path.as_posix() or any(n in path.as_posix() for n in names):
                written_s = path.stat().st_mtime - (20 - 2 * number) * DAY_S
                os.utime(path, (written_s, written_s))
    return made


def rolled_back_run(home: OldHome) -> str:
    (version,) = home.tracking.versions({ROLLED_BACK: "green skin"})
    return str(version.run_id)


def test_it_frees_what_it_says_and_all_that_is_needed_opens(home: OldHome) -> None:
    before = files_of(home.root)
    said = omokage(home.root, "gc", "--keep", str(KEEP))
    assert files_of(home.root) == before
    going = home.garbage().going
    expected = sum(one.size_bytes for one in going)
    assert expected > 4 * 50_000
    assert f"{len(going)} to remove, {expected / 1e6:,.1f} MB. Nothing was changed" in said
    assert "generators/notes.txt" in said
    assert re.search(r"generators +6 +\S+ +4 .*champion 1", said)
    done = omokage(home.root, "gc", "--keep", str(KEEP), "--apply")
    after = files_of(home.root)
    assert f"{len(going)} removed, {expected / 1e6:,.1f} MB freed" in done
    assert sum(before.values()) - sum(after.values()) == expected
    stay = {1, 2, 3, 7, 8, 9}  # previous, champion, what 9 went on from, the last three
    for number, (folder, digest) in enumerate(zip(home.generators, home.manifests, strict=True)):
        for part in (f"{folder}/generator", f"packed/{digest}"):
            assert home.store.exists(part) == (number in stay), part
        is_known = number in stay or number == REGISTERED[LEFT]  # its lineage is queried
        assert home.store.exists(f"manifest/{digest}") == is_known
    assert home.store.names("evaluations") == [f"{n:012x}" for n in (7, 8, 9)]
    assert {"blobs/ab/cd/abcd.png", f"{home.generators[0]}/notes.txt"} < after.keys()
    left = {
        run.data.tags["mlflow.runName"]
        for run in home.tracking.runs()
        if run.info.lifecycle_stage == "active"
    }
    assert left == {home.generators[number] for number in {*stay, REGISTERED[LEFT]}}
    home.opens()
    run = next(one for one in home.tracking.runs() if one.info.run_id == rolled_back_run(home))
    assert run.data.tags[JUDGED_ON] == home.manifests[REGISTERED[LEFT]]
    assert "champion   models:/avatar-generator@champion is version 2" in omokage(
        home.root, "status"
    )
    assert "0 removed, 0.0 MB freed" in omokage(home.root, "gc", "--keep", str(KEEP), "--apply")
    assert files_of(home.root) == after


@pytest.mark.ci
def test_killed_anywhere_it_goes_on_and_leaves_nothing_half(
    home: OldHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls, remove = 0, Store.remove

    def killed(store: Store, path: str) -> None:
        nonlocal calls
        calls += 1
        if calls % 12 == 0:
            raise KeyboardInterrupt
        remove(store, path)

    monkeypatch.setattr(Store, "remove", killed)
    kept = home.garbage().home.reasons
    kills, going = 0, True
    while going:
        try:
            home.garbage().remove()
            going = False
        except KeyboardInterrupt:
            kills += 1
            found = home.garbage()
            lost = kept.keys() - found.home.reasons.keys()  # a run whose training has gone stays
            assert all(name.startswith("mlflow/") for name in lost)
            for one in found.going:
                names = {path.removeprefix(f"{one.name}/") for path in one.files}
                if one.kind == "manifests" and "manifest.json" in names:
                    assert {"train.parquet", "eval.parquet"} < names
                if one.kind == "generators" and "generator/train.json" in names:
                    assert "generator/generator.safetensors" in names
    assert kills > 3
    monkeypatch.undo()
    assert home.garbage().going == []
    home.opens()


def test_it_waits_for_nobody_and_leaves_a_training_alone(home: OldHome) -> None:
    before = files_of(home.root)
    with alone_in(home.store), pytest.raises(UsageError, match="training or comparison is at work"):
        omokage(home.root, "gc", "--apply")
    tables = file_lock(home.root / "tables.lock")
    with tables, pytest.raises(UsageError, match="a stage builds tables"):
        omokage(home.root, "gc", "--apply")
    with opened_instance(home.settings.dagster_home) as instance:
        run = instance.create_run_for_job(work, status=dg.DagsterRunStatus.STARTED)
        with pytest.raises(UsageError, match=r"work \(run .*, running"):
            omokage(home.root, "gc", "--apply")
        instance.report_run_failed(run)
    assert files_of(home.root) == before
    trained = home.generators[4]
    with file_lock(home.root / trained / "training.lock"):
        said = omokage(home.root, "gc", "--keep", str(KEEP), "--apply")
    assert f"{trained}: a training is at work in it" in said
    assert home.store.exists(f"{trained}/generator/train.json")
    assert not home.store.exists(home.generators[5])


def test_what_names_nothing_it_knows_stops_it(home: OldHome) -> None:
    """While it is not known what a training needs, nothing goes."""
    (home.root / home.generators[9] / "generator/train.json").write_text("{")
    with pytest.raises(OmokageError, match="is not JSON"):
        omokage(home.root, "gc", "--apply")


@pytest.mark.ci
def test_finished_runs_of_dagster_go_but_not_those_that_made_what_stays(
    home: OldHome, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(retention, "RUN_DAYS", -1)  # as if it were a month later
    with opened_instance(home.settings.dagster_home) as instance:
        ids = [work.execute_in_process(instance=instance).run_id for _ in range(6)]
        version = home.tracking.holder(CHAMPION)
        assert version is not None
        home.tracking.client().set_tag(str(version.run_id), "omokage.dagster_run", ids[0])
        before = {
            path: path.stat().st_size
            for path in Path(instance.root_directory).rglob("*")
            if path.is_file()
        }
        result = gc_job.execute_in_process(
            instance=instance,
            run_config={"ops": {"collect_garbage": {"config": {"keep": KEEP}}}},
            resources=_resources(home),
        )
        assert result.success
        left = {run.run_id for run in instance.get_runs()}
        assert left == {ids[0], *ids[3:], result.run_id}
        gone = [path for path in before if any(one in path.as_posix() for one in ids[1:3])]
        assert gone
        assert not any(path.exists() for path in gone)
        found = Garbage.of(home.store, home.tracking, instance, keep=KEEP)
        assert not [one for one in found.going if one.kind == DAGSTER_RUN and one.name in ids]
    home.opens()


def _resources(home: OldHome) -> dict[str, Any]:
    from pipeline.build import resources

    made = resources(home.settings)
    return {"store": made["store"], "tracking": made["tracking"]}


def test_a_table_whose_first_build_was_interrupted_has_no_old_versions(tmp_path: Path) -> None:
    store = Store(tmp_path)
    tables.write(store, CROPS_PATH, (), schema=CROPS)
    assert Garbage.of(store, None, None, keep=3).versions == {CROPS_PATH: 0}
    shutil.rmtree(store.state.local(f"{CROPS_PATH}/_versions"))
    assert Garbage.of(store, None, None, keep=3).versions == {}
