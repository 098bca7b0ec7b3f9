"""A takedown leaves nothing of a picture in a home, MLflow and Dagster; nothing brings it back."""

import dataclasses
import datetime as dt
import fnmatch
import hashlib
import io
import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from assets.champion import champion
from assets.crawl import crawl_asset
from assets.evaluation import evaluation
from assets.faces import faces
from assets.generator import generator, planned
from assets.labels import labels
from assets.machine_labels import machine_labels
from assets.manifest import manifest
from assets.posts import posts_asset
from assets.reporting import inline
from assets.resources import ComputeResource, StoreResource
from crawlers.export import export_posts
from crawlers.ledger import Ledger
from crawlers.post import Post
from crawlers.sites import load_sites
from dataset.crops import Crops
from dataset.errors import OmokageError, SchemaError
from dataset.geometry import resized
from dataset.manifest import Manifest, load_manifest, read_split
from dataset.packed import pack
from dataset.review import write_review
from dataset.schemas import FACES, POSTS, read_table
from dataset.store import Store
from dataset.takedown import Trace, learnt_from, read_receipts
from models.evaluation.label_judge import thumbnails
from models.presets import preset
from models.registry.promotion import TAKEDOWN
from pipeline.build import tracking_of
from pipeline.cli import cli
from pipeline.commands import takedown
from pipeline.instance import databases, prepare_home, previews_of_reals, repack, scrub_previews
from pipeline.settings import Settings, read_settings
from tests.assets.workshop import WorksHere
from tests.crawlers.test_takedown import Crawled
from tests.dataset.home import png, portrait
from tests.pipeline.picture_scan import Scan

MOMENT = dt.datetime(2026, 10, 1, tzinfo=dt.UTC)


def make_post(post_id: int = 1, **changes: Any) -> Post:
    names = ("ext", "md5", "source", "width", "height")
    fields: dict[str, Any] = dict.fromkeys(names) | dict.fromkeys(
        (f"tags_{kind}" for kind in ("general", "character", "copyright", "artist", "meta")), ()
    )
    times = dict.fromkeys(("created_at", "updated_at", "fetched_at"), MOMENT)
    fields |= times | {"board": "demo", "post_id": post_id, "rating": "general", "score": 1}
    return Post(**{**fields, "file_url": "http://127.0.0.1/media/1.png", **changes})


def omokage(home: Path, *arguments: str) -> str:
    """Runs a command as the command line does; returns what it said."""
    result = CliRunner().invoke(cli, [*arguments, "--home", str(home)])
    if result.exception is not None:
        raise result.exception
    return result.output


@pytest.fixture
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("OMOKAGE_", "MLFLOW_", "DAGSTER_")):
            monkeypatch.delenv(name)


@pytest.fixture
def crawled(tmp_path: Path, clean: None) -> Crawled:
    """Twelve pictures of twelve artists, the fifth of which another board has too."""
    home = Crawled(tmp_path / "home", make_post)
    home.blobs = [home.keep(number, png(portrait(number))) for number in range(1, 13)]
    home.keep(50, png(portrait(5)), board="demo_moebooru")
    home.build()
    return home


def opened(crawled: Crawled) -> tuple[Settings, Store, Ledger]:
    return read_settings({}, home=crawled.store.root), crawled.store, Ledger.of(crawled.store)


def sha256_of(crawled: Crawled, number: int) -> str:
    return Path(crawled.blobs[number - 1]).stem


def holding(home: Path, *texts: str) -> set[str]:
    """The files whose path or bytes have one of the texts."""
    return {
        path.relative_to(home).as_posix()
        for path in home.rglob("*")
        if path.is_file()
        for text in texts
        if "takedowns/" not in path.as_posix()  # receipts name what they removed
        if text in path.name or text.encode() in path.read_bytes()
    }


def test_add_writes_a_line_that_is_none_or_known_is_refused(tmp_path: Path, clean: None) -> None:
    omokage(tmp_path, "takedown", "add", "post", "danbooru/5", "--note", "mail  of\nMonday")
    omokage(tmp_path, "takedown", "add", "artist", "some_one")
    text = "post danbooru/5  # mail of Monday\nartist some_one\n"
    assert (tmp_path / "takedown.txt").read_text() == text
    for kind, value, fault in (
        ("post", "danbooru/5", "already"),
        ("artist", "Some One", "already"),
        ("artist", "c#", 'a "#" begins a remark'),
        ("artist", " ", "wanted"),
        ("post", "danboru/5", 'did you mean "danbooru"'),
        ("post", "danbooru/x", "wanted"),
        ("md5", "12", "wanted"),
    ):
        with pytest.raises(OmokageError, match=fault):
            omokage(tmp_path, "takedown", "add", kind, value)
    assert (tmp_path / "takedown.txt").read_text() == text


def test_apply_reaches_all_files_of_a_home_and_twice_changes_nothing(crawled: Crawled) -> None:
    store, home = crawled.store, Path(crawled.store.root)
    made, sha256 = load_manifest(store, None), sha256_of(crawled, 5)
    md5 = hashlib.md5(png(portrait(5)), usedforsecurity=False).hexdigest()
    pack(store, made, "train", resolution_px=32)
    write_review(store, pages=0)
    store.write_bytes(f"trash/2026-11-01/{crawled.blobs[4]}", png(portrait(5)))
    store.write_bytes(f"trash/2026-11-01/crops/{sha256[:2]}/{sha256[:16]}-0.png", b"a crop")
    store.write_bytes("blobs/aa/bb/unnamed.png", png(portrait(5)))  # an orphan, of whatever name
    (home / "blobs/.tmp-x").write_bytes(png(portrait(5)))
    bad = [{"board": "demo", "post_id": n, "reason": "r", "raw": f"of {n}"} for n in (4, 5)]
    store.write_bytes(
        "quarantine.jsonl", b"".join(json.dumps(line).encode() + b"\n" for line in bad)
    )
    store.write_bytes("cache/features/one.f32", b"floats")
    store.write_bytes(f"manifest/{'0' * 64}/manifest.json", b"{}")  # whose tables are gone
    sheet = f"generators/one/evaluation/x/{'reals.png'}"
    store.write_bytes(sheet, b"a sheet")
    about = {"manifest_digest": made.digest, "reals_grid": sheet, "fd": 1.0}
    store.write_json("generators/one/evaluation/x/evaluation.json", about)
    store.write_json("generators/one/generator/train.json", {"manifest_digest": made.digest})

    omokage(home, "takedown", "add", "post", "demo/5")
    before = {path: path.read_bytes() for path in home.rglob("*") if path.is_file()}
    said = omokage(home, "takedown", "apply", "--dry-run")
    assert {path: path.read_bytes() for path in before if path.suffix != ".sqlite"} == {
        path: content for path, content in before.items() if path.suffix != ".sqlite"
    }
    assert "record of demo_moebooru/50" in said
    assert omokage(home, "takedown", "status").startswith("waits      post demo/5")
    said = omokage(home, "takedown", "apply")

    for gone in (sheet, "packed", "review", "cache/features", "blobs/aa/bb/unnamed.png"):
        assert not store.files(gone), gone
    assert not list(home.rglob(".tmp-*"))
    assert holding(home, sha256, sha256[:16], "painter_5") == {
        f"manifest/{made.digest}/takedown.json"
    }
    assert holding(home, md5) == {"takedown.txt", "ledger.sqlite"}
    assert [line["post_id"] for line in map(json.loads, (home / "quarantine.jsonl").open())] == [4]
    evaluated = store.read_json("generators/one/evaluation/x/evaluation.json")
    assert evaluated == {"manifest_digest": made.digest, "fd": 1.0}
    (receipt,) = read_receipts(store)
    assert {one["post"] for one in receipt["pictures"]} == {"demo/5", "demo_moebooru/50"}
    assert receipt["entries"]["post demo/5"] == ["demo/5", "demo_moebooru/50"]
    assert [one["path"] for one in receipt["models"]] == ["generators/one"]
    assert omokage(home, "takedown", "receipt") == said
    assert omokage(home, "takedown", "receipt", receipt["id"]) == said
    with pytest.raises(OmokageError, match="no receipt"):
        omokage(home, "takedown", "receipt", "other")

    # Nothing else went, and the rows that are left can be read and built on.
    for path, schema in (("posts.lance", POSTS), ("faces.lance", FACES)):
        numbers = {row["post_id"] for row in read_table(store, path, declared=schema).to_pylist()}
        assert numbers == set(range(1, 13)) - {5}
    assert "nothing to remove" in omokage(home, "takedown", "apply")
    applied = ["applied    post demo/5", f"applied    md5 {md5}"]  # which apply has added itself
    assert omokage(home, "takedown", "status").splitlines() == applied
    with pytest.raises(SchemaError, match="1 rows of this manifest were taken down"):
        [read_split(store, made, split) for split in ("train", "eval")]
    assert "(taken down)" in omokage(home, "lineage", "post", "demo/5")
    assert "no manifest" in omokage(home, "lineage", "post", "demo/99")
    lines = omokage(home, "lineage", "face", f"{sha256_of(crawled, 3)[:16]}-0")
    assert "training   generators/one" in lines
    assert crawled.build() == {("demo", number) for number in range(1, 13) if number != 5}


def test_killed_after_any_step_the_same_command_finishes_it(
    crawled: Crawled, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Path(crawled.store.root)
    write_review(crawled.store, pages=0)
    omokage(home, "takedown", "add", "artist", "painter_5")
    steps = len(omokage(home, "takedown", "apply", "--dry-run").splitlines())
    whole, kills = takedown._Found.of, 0

    def killed(trace: Trace) -> Trace:
        def mend() -> str | None:
            trace.mend()
            raise KeyboardInterrupt

        return dataclasses.replace(trace, mend=mend)

    def killing(*arguments: Any) -> Any:
        found = whole(*arguments)
        first = [killed(trace) for trace in found.traces[:1]]
        return dataclasses.replace(found, traces=[*first, *found.traces[1:]])

    with monkeypatch.context() as patched:  # after the first of what is still there, each time
        patched.setattr(takedown._Found, "of", killing)
        while whole(*opened(crawled)).traces:
            with pytest.raises(SystemExit):
                omokage(home, "takedown", "apply")
            kills += 1
    said = omokage(home, "takedown", "apply")
    (receipt,) = read_receipts(crawled.store)
    assert (kills, len(receipt["removed"])) == (steps, steps)
    assert receipt["done_at"] is not None
    assert f"removed: {steps}" in said
    assert holding(home, "painter_5", sha256_of(crawled, 5)[:16]) == {
        f"manifest/{load_manifest(crawled.store, None).digest}/takedown.json",
        "takedown.txt",
    }


def test_what_cannot_be_removed_is_listed_with_the_reason(
    crawled: Crawled, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, whole = Path(crawled.store.root), takedown._Found.of
    of = frozenset({"demo/5"})
    stubborn = Trace(
        "MLflow run 1: images/x.png", "grid of real faces", of, mend=lambda: "no right"
    )

    def found(*arguments: Any) -> Any:
        made = whole(*arguments)
        return dataclasses.replace(made, traces=[stubborn, *made.traces])

    omokage(home, "takedown", "add", "post", "demo/5")
    with monkeypatch.context() as patched:
        patched.setattr(takedown._Found, "of", found)
        said = omokage(home, "takedown", "apply")
    assert (
        "not removed: 1\n  grid of real faces  MLflow run 1: images/x.png  (demo/5): no right"
        in said
    )
    (receipt,) = read_receipts(crawled.store)
    assert receipt["done_at"] is not None
    assert stubborn.path not in [one["path"] for one in receipt["removed"]]


@pytest.mark.parametrize("lost", ["ledger", "list", "both tables"])
def test_what_comes_back_from_a_backup_is_found_and_removed_again(
    crawled: Crawled, lost: str
) -> None:
    home = Path(crawled.store.root)
    backup = home.with_name("backup")
    shutil.copytree(home, backup)
    omokage(home, "takedown", "add", "post", "demo/5")
    omokage(home, "takedown", "apply")
    names = {"ledger": "ledger.sqlite", "list": "blobs", "both tables": "faces.lance"}
    if lost == "list":
        shutil.copytree(backup / "blobs", home / "blobs", dirs_exist_ok=True)
    else:
        for path in home.glob(f"{names[lost]}*"):
            shutil.rmtree(path) if path.is_dir() else path.unlink()
        put_back = shutil.copytree if (backup / names[lost]).is_dir() else shutil.copy
        put_back(backup / names[lost], home / names[lost])
    assert "came back" in omokage(home, "takedown", "status")
    omokage(home, "takedown", "apply")
    assert "came back" not in omokage(home, "takedown", "status")
    assert len(read_receipts(crawled.store)) == 2
    assert not holding(home, sha256_of(crawled, 5)) - {
        f"manifest/{load_manifest(crawled.store, None).digest}/takedown.json"
    }


def test_with_a_new_ledger_the_list_alone_keeps_the_files_out(
    crawled: Crawled, tmp_path: Path
) -> None:
    home = Path(crawled.store.root)
    omokage(home, "takedown", "add", "post", "demo/5")
    omokage(home, "takedown", "apply")
    new, own = Crawled(tmp_path / "new", make_post), tmp_path / "own"
    shutil.copy(home / "takedown.txt", tmp_path / "new")
    own.mkdir()
    (own / "1.png").write_bytes(png(portrait(5)))
    (own / "2.png").write_bytes(png(portrait(60)))
    arguments = ("import", "folder", str(own), "--rating", "general", "--name", "own")
    said = omokage(tmp_path / "new", *arguments)
    assert "1 kept, 1 refused" in said
    assert "refused: takedown 1" in said
    assert len(new.store.files("blobs")) == 1
    new.keep(99, png(portrait(5)), board="demo_moebooru")  # a crawl that had read no list
    export_posts(new.store, ["demo", "demo_moebooru"])
    assert sha256_of(crawled, 5) not in " ".join(new.store.files("blobs"))


def test_other_files_of_the_same_drawing_are_named_and_left(crawled: Crawled) -> None:
    copy = io.BytesIO()
    portrait(5).save(copy, "JPEG", quality=85)
    crawled.keep(77, copy.getvalue(), ext="jpg")
    crawled.build()
    home = Path(crawled.store.root)
    omokage(home, "takedown", "add", "post", "demo/5")
    said = omokage(home, "takedown", "apply")
    assert "alike, not removed: look at them: 1" in said
    assert "demo/77: picture like demo/5" in said


def test_while_others_are_at_work_nothing_is_removed(crawled: Crawled) -> None:
    home = Path(crawled.store.root)
    omokage(home, "takedown", "add", "post", "demo/5")
    with Ledger.of(crawled.store) as ledger:
        ledger.lock("demo")
        with pytest.raises(OmokageError, match="a crawl or an import is at work"):
            omokage(home, "takedown", "apply")
    assert (home / crawled.blobs[4]).exists()


def test_a_training_that_went_on_from_a_marked_one_learnt_from_it_too(tmp_path: Path) -> None:
    store, digests = Store(tmp_path), [letter * 64 for letter in "abc"]
    for place, digest in enumerate(digests):
        before = {"folder": f"generators/{place - 1}", "manifest_digest": digests[place - 1]}
        about = {"manifest_digest": digest, "origin": before if place else None}
        store.write_json(f"generators/{place}/generator/train.json", about)
    assert learnt_from(store, "generators/2") == ["c" * 64, "b" * 64, "a" * 64]
    row = {"face_id": "0-0", "board": "demo", "post_id": 1, "sha256": "0"}
    store.write_json(f"manifest/{digests[0]}/takedown.json", {"removed": [row]})
    current = {"id": "2", "manifest": digests[2]}

    made = Manifest("d" * 64, "", ["blue_hair"], 1, 1, 64, 0.5, {}, {}, {})
    plan = planned(store, preset("smoke", []), manifest=made, grow_kimg=1.0, current=current)
    assert plan.reason == "from scratch: 2: 1 of the faces that it learnt from were taken down"


def test_the_event_log_loses_previews_of_reals_and_keeps_all_else(tmp_path: Path) -> None:
    picture, other = (
        Image.fromarray(np.random.default_rng(seed).integers(0, 255, (64, 64, 3), np.uint8))
        for seed in (0, 1)
    )
    log, text = tmp_path / "dagster", inline(picture).value.encode()
    pieces = [text[start : start + 48] for start in range(2000, len(text) - 48, 100)]

    def held() -> int:
        content = b"".join(path.read_bytes() for path in log.rglob("*.db*"))
        return sum(piece in content for piece in pieces)

    @dg.asset
    def faces() -> dg.MaterializeResult:
        return dg.MaterializeResult(metadata={"preview": inline(picture), "kept": 7})

    @dg.asset
    def evaluation() -> dg.MaterializeResult:
        shown = {"fakes_preview": inline(other), "reals_preview": inline(picture)}
        return dg.MaterializeResult(metadata=shown)

    log.mkdir()
    with dg.DagsterInstance.local_temp(str(log)) as instance:
        dg.materialize([faces, evaluation], instance=instance)
    assert held() > 10
    paths = [path for path in databases(str(log)) if previews_of_reals(path)]
    assert len(paths) == 2  # the run's own and the index
    for path in paths:
        scrub_previews(path, "(gone)")
        repack(path)
        assert previews_of_reals(path) == 0
    assert held() == 0  # in free pages and write-ahead logs neither
    with dg.DagsterInstance.local_temp(str(log)) as instance:
        of = {
            name: instance.get_latest_materialization_event(dg.AssetKey(name))
            for name in ("faces", "evaluation")
        }
        metadata = {name: event.asset_materialization.metadata for name, event in of.items()}  # type: ignore[union-attr]
    assert metadata["faces"]["preview"].value == "(gone)"
    assert metadata["faces"]["kept"].value == 7
    assert "data:image" in str(metadata["evaluation"]["fakes_preview"].value)
    assert metadata["evaluation"]["reals_preview"].value == "(gone)"


class Crawls(WorksHere):
    """Measures and trains in this process; a crawl brings nothing that is not there already."""

    def run(self, context: Any, arguments: Sequence[str], **options: Any) -> dict[str, Any]:
        if "crawlers.run" not in arguments:
            return super().run(context, arguments, **options)
        names = ("seen", "kept", "put_off", "quarantined", "bytes", "api_requests")
        others = {"refused": {}, "rechecked": {"requests": 0}, "media_requests": 0, "seconds": 0.1}
        return {**dict.fromkeys(names, 0), **others}


DATASET = [
    crawl_asset(load_sites()["demo"]), posts_asset(["demo"]), faces, labels, machine_labels,
    manifest,
]  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Whole:
    """A home with all that the chain leaves, Dagster's and MLflow's history too."""

    settings: Settings
    crawled: Crawled

    @property
    def home(self) -> Path:
        return Path(self.settings.home)

    def build(self, *seeds: int) -> None:
        """Builds the dataset, then trains, judges and registers a generator for each seed."""
        tracking = tracking_of(self.settings)
        given = {
            "store": StoreResource(root=self.settings.home),
            "compute": ComputeResource(on="threads:2"),
            "child": Crawls(trains_here=True),
            "tracking": tracking,
        }
        length = dict.fromkeys(("total_kimg", "snapshot_kimg", "tick_kimg"), "0.016")
        with dg.DagsterInstance.from_config(str(self.home / "dagster")) as instance:
            config: dict[str, Any] = {"manifest": {"config": {"eval_frac": 0.4}}}
            dg.materialize(DATASET, instance=instance, resources=given, run_config={"ops": config})
            for seed in seeds:
                overrides = {"device": "cpu", "threads": "1", "seed": str(seed), **length}
                config = {
                    "generator": {"config": {"preset": "smoke", "overrides": overrides}},
                    "evaluation": {"config": {"fakes": 64}},
                }
                dg.materialize(
                    [generator, evaluation, champion],
                    instance=instance,
                    resources=given,
                    run_config={"ops": config},
                )

    def taken(self) -> dict[int, Image.Image]:
        """A picture of each split with its crop: one of train that stands among neighbours."""
        (sheet,) = list(self.home.glob("generators/*/evaluation/*/neighbours.png"))[:1]
        found: dict[str, tuple[int, Image.Image]] = {}
        made = load_manifest(self.crawled.store, None)
        for split in ("train", "eval"):
            rows = read_split(self.crawled.store, made, split)
            for row, crop in zip(
                rows.to_pylist(), Crops(self.crawled.store).pixels(rows), strict=True
            ):
                scan = Scan([], [crop])
                if split == "eval" or scan.find(sheet.parent).keys() & {"neighbours.png"}:
                    found.setdefault(split, (row["post_id"], Image.fromarray(crop)))
        return dict(found.values())


@pytest.fixture
def whole(tmp_path: Path, clean: None, monkeypatch: pytest.MonkeyPatch) -> Whole:
    settings = read_settings({}, home=str(tmp_path / "home"))
    for name, value in settings.environment().items():
        monkeypatch.setenv(name, value)
    prepare_home(settings)
    crawled = Crawled(tmp_path / "home", make_post)
    crawled.blobs = [crawled.keep(number, png(portrait(number))) for number in range(1, 29)]
    made = Whole(settings, crawled)
    made.build(1, 2)
    write_review(crawled.store, pages=0)
    return made


@pytest.mark.slow  # two trainings, evaluations and registrations: a minute on two idle cores
def test_of_a_home_with_two_generators_nothing_of_the_picture_is_left(whole: Whole) -> None:
    taken, home = whole.taken(), whole.home
    originals = {number: png(portrait(number)) for number in taken}
    trash = f"trash/2026-11-01/{whole.crawled.blobs[min(taken) - 1]}"
    whole.crawled.store.write_bytes(trash, originals[min(taken)])
    small = [resized(np.asarray(crop), 64) for crop in taken.values()]
    floats = [thumbnails(one[None]).astype(np.float32).tobytes()[:256] for one in small]
    crops = [np.asarray(crop) for crop in taken.values()]
    scan = Scan(list(originals.values()), crops, thumbs=floats)
    before = scan.find(home)
    places = (
        *("blobs/*/*/*.png", "crops.lance/data/*.lance", "trash/*"),
        *("packed/*/train-64.npy", "packed/*/eval-64.npy", "review/page-0001.png"),
        *("cache/features/*.f32", "dagster/history/runs/index.db"),
        *("generators/*/evaluation/*/reals.png", "generators/*/evaluation/*/neighbours.png"),
        *("mlflow/artifacts/*/images/eval_reals_grid*.png", "mlflow/artifacts/*/images/*.webp"),
        "mlflow/artifacts/*/images/eval_neighbours_grid*.png",
    )
    for place in places:  # the scan can find it, and so can fail, in each of these
        assert fnmatch.filter(before, place), f"{place} not in {sorted(before)}"
    runs = set(fnmatch.filter(before, "dagster/history/runs/*-*.db"))
    assert len(runs) == 3  # the dataset's and two generators'

    for number in taken:
        omokage(home, "takedown", "add", "post", f"demo/{number}")
    said = omokage(home, "takedown", "apply")
    assert scan.find(home) == {}
    assert all(path in said for path in runs | {trash})
    tracking = tracking_of(whole.settings).open()
    posts = ", ".join(sorted(f"demo/{number}" for number in taken))
    for version in tracking.versions({}):
        assert version.tags[TAKEDOWN] == posts
        assert (version.description or "").startswith("> **Taken down:** ")
        assert f"registered model  version {version.version}" in said
    refused = omokage(home, "promote", "2")
    assert f"version 2 learnt from pictures that were taken down ({posts})" in refused
    assert f"pictures that it learnt from: {posts}" in omokage(home, "status")
    for number in taken:
        lines = omokage(home, "lineage", "post", f"demo/{number}")
        assert {"version    1 of", "version    2 of"} <= {line[:15] for line in lines.splitlines()}
    listed = omokage(home, "lineage", "version", "2", "--list")  # what it learnt from stays known
    assert any(Path(whole.crawled.blobs[number - 1]).stem[:16] in listed for number in taken)
    assert "nothing to remove" in omokage(home, "takedown", "apply")

    whole.build(1)  # a manifest without them, and a training on that one alone
    assert scan.find(home) == {}
    assert TAKEDOWN not in tracking.versions({})[0].tags
    assert "taken down nothing of it" in omokage(home, "lineage", "version", "3")
    assert "learnt from pictures" not in omokage(home, "promote", "3")
    assert "came back" not in omokage(home, "takedown", "status")
