"""The growth sensor says with numbers why it asks for a training or does not."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from dagster._core.storage.dagster_run import RunOpConcurrency

from dataset.digests import content_digest
from dataset.manifest import CURRENT_PATH, SPLITS, manifest_digest
from dataset.schemas import manifest_schema
from dataset.store import Store
from pipeline.automation.sensors import DIGEST_TAG, Decision, decide
from pipeline.build import build_defs
from pipeline.settings import parse_threshold, read_settings

LABELS = ["blonde_hair", "blue_eyes"]


@dataclass
class Bench:
    """A store and an instance with small assets of the real ones' names and blocking checks."""

    store: Store
    instance: dg.DagsterInstance
    passing: dict[str, bool] = field(default_factory=lambda: {"kept": True, "rows": True})
    fails: bool = False  # the run ends before anything is made

    def put(self, faces: Sequence[int], *, materialise: bool = True) -> str:
        """Makes a manifest of these faces the current one; returns its digest."""
        schema = manifest_schema(LABELS)
        rows = {split: [face for face in faces if _split(face) == split] for split in SPLITS}
        tables = {split: _table(schema, split, rows[split]) for split in SPLITS}
        splits = {split: content_digest(table) for split, table in tables.items()}
        digest = manifest_digest(LABELS, splits)
        for split, table in tables.items():
            with self.store.writing(f"manifest/{digest}/{split}.parquet") as file:
                pq.write_table(table, file)
        self.store.write_json(
            f"manifest/{digest}/manifest.json",
            {
                "digest": digest, "folder": f"manifest/{digest}", "labels": LABELS,
                "train_rows": len(rows["train"]), "eval_rows": len(rows["eval"]),
                "crop_px": 64, "eval_frac": 0.1, "counts": {}, "made_from": {}, "splits": splits,
            },
        )  # fmt: skip
        self.store.write_json(CURRENT_PATH, {"digest": digest})
        if materialise:
            self.materialise()
        return digest

    def learnt(self, digest: str) -> None:
        self.store.write_json("generators/current.json", {"manifest": digest})

    def materialise(self, *, checks: bool = True) -> None:
        """Runs posts and manifest, with their blocking checks or without."""
        passing, store, fails = self.passing, self.store, self.fails

        @dg.asset
        def posts() -> None:
            if fails:
                raise dg.Failure("the board is gone")

        @dg.asset(deps=[posts])
        def manifest() -> dg.MaterializeResult:
            return dg.MaterializeResult(
                metadata={"digest": store.read_json(CURRENT_PATH)["digest"]}
            )

        @dg.asset_check(asset=posts, blocking=True)
        def kept() -> dg.AssetCheckResult:
            return dg.AssetCheckResult(passed=passing["kept"], description="12 of 4,096 kept")

        @dg.asset_check(asset=manifest, blocking=True)
        def rows() -> dg.AssetCheckResult:
            return dg.AssetCheckResult(passed=passing["rows"], description="5 rows in eval")

        made = [posts, manifest, *([kept, rows] if checks else [])]
        dg.materialize(made, instance=self.instance, raise_on_error=False)

    def decide(self, grow: str = "10%") -> Decision:
        keys = [
            dg.AssetCheckKey(dg.AssetKey(asset), check)
            for asset, check in (("posts", "kept"), ("manifest", "rows"))
        ]
        jobs = {"train_and_judge", "refresh_demo"}
        return decide(self.instance, self.store, parse_threshold(grow), checks=keys, jobs=jobs)


def _split(face: int) -> str:
    return "train" if face % 10 else "eval"


def _table(schema: pa.Schema, split: str, faces: Sequence[int]) -> pa.Table:
    ids = [f"{face:016x}" for face in faces]
    columns = {
        "face_id": ids, "crop": ids, "crop_sha256": ids, "split": [split] * len(ids),
        "board": ["demo"] * len(ids), "post_id": list(faces), "sha256": ids,
        "labels_by": ["board"] * len(ids), **{label: [True] * len(ids) for label in LABELS},
    }  # fmt: skip
    return pa.table(columns, schema=schema)


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield Bench(Store(tmp_path / "home"), instance)


def test_without_a_manifest_there_is_nothing_to_train_on(bench: Bench) -> None:
    decision = bench.decide()
    assert decision.manifest is None
    assert "there is no manifest yet" in decision.reason


def test_the_first_manifest_asks_for_the_first_generator(bench: Bench) -> None:
    digest = bench.put(range(300))
    assert bench.decide() == Decision(
        digest, "there is no generator yet, and the manifest has 300 faces"
    )


def test_an_unchanged_manifest_is_not_trained_on(bench: Bench) -> None:
    digest = bench.put(range(300))
    bench.learnt(digest)
    decision = bench.decide("1")
    assert decision.manifest is None
    assert decision.reason == (
        f"the generator learnt from this very manifest ({digest[:12]}, 300 faces): nothing is new"
    )


@pytest.mark.parametrize(
    ("grow", "asks", "reason"),
    [
        (
            "10%", False,
            "the manifest has 2,010 faces, 1,947 were learnt from: 63 new (3.24 % more), "
            "10 % wanted",
        ),
        ("3%", True, "63 new (3.24 % more), 3 % wanted"),
        ("10%,63", True, "63 new (3.24 % more), 10 % or 63 wanted"),
        ("64", False, "63 new (3.24 % more), 64 wanted"),
    ],
)  # fmt: skip
def test_growth_is_told_in_numbers(bench: Bench, grow: str, asks: bool, reason: str) -> None:
    bench.learnt(bench.put(range(1947), materialise=False))
    digest = bench.put(range(2010))
    decision = bench.decide(grow)
    assert decision.manifest == (digest if asks else None)
    assert reason in decision.reason


def test_faces_that_were_taken_down_are_told_and_do_not_hide_new_ones(bench: Bench) -> None:
    bench.learnt(bench.put(range(200), materialise=False))
    digest = bench.put(range(50, 240))  # 10 fewer than before, and yet 40 are new
    decision = bench.decide("40")
    assert decision.manifest == digest
    assert decision.reason == (
        "the manifest has 190 faces, 200 were learnt from: 40 new (20 % more), 50 of the learnt "
        "ones are gone, 40 wanted"
    )


def test_a_manifest_that_only_shrank_is_not_trained_on(bench: Bench) -> None:
    bench.learnt(bench.put(range(200), materialise=False))
    bench.put(range(150))
    decision = bench.decide("1")
    assert decision.manifest is None
    assert "0 new (0 % more), 50 of the learnt ones are gone, 1 wanted" in decision.reason


def test_without_the_learnt_tables_rows_are_compared(bench: Bench) -> None:
    old = bench.put(range(200), materialise=False)
    bench.learnt(old)
    bench.store.remove(f"manifest/{old}/train.parquet")
    bench.put(range(230))
    assert "230 faces, 200 were learnt from: 30 new (15 % more)" in bench.decide("50").reason


def test_without_the_learnt_manifest_all_faces_are_new(bench: Bench) -> None:
    bench.learnt("0" * 64)
    digest = bench.put(range(230))
    decision = bench.decide("50%")
    assert decision.manifest == digest
    assert "is not there any more: all count as new" in decision.reason


@pytest.mark.parametrize(
    ("check", "said"),
    [
        ("kept", 'the blocking check kept of posts failed: "12 of 4,096 kept"; nothing is'),
        ("rows", 'the blocking check rows of manifest failed: "5 rows in eval"; nothing is'),
    ],
)
def test_a_failed_blocking_check_is_named_and_not_passed(
    bench: Bench, check: str, said: str
) -> None:
    bench.put(range(300))
    bench.passing[check] = False
    bench.materialise()
    decision = bench.decide()
    assert decision.manifest is None
    assert said in decision.reason


def test_a_run_that_ended_before_its_checks_takes_no_verdict_back(bench: Bench) -> None:
    digest = bench.put(range(300))
    bench.passing["kept"] = False
    bench.materialise()
    bench.passing["kept"] = True
    bench.materialise()
    assert bench.decide().manifest == digest
    bench.fails = True
    bench.materialise()
    assert bench.decide().manifest == digest


def test_checks_that_have_not_run_since_the_materialisation_are_not_passed(bench: Bench) -> None:
    bench.put(range(300))
    bench.materialise(checks=False)
    decision = bench.decide()
    assert decision.manifest is None
    assert "the blocking check kept has not run since posts was materialised" in decision.reason
    assert "(and 1 more)" in decision.reason


def test_a_manifest_that_dagster_has_not_checked_is_not_trained_on(bench: Bench) -> None:
    bench.put(range(300))
    other = bench.put(range(310), materialise=False)
    decision = bench.decide()
    assert decision.manifest is None
    assert decision.reason.startswith(f"the manifest in the home ({other[:12]}) is not that of the")


@pytest.mark.parametrize("ended", ["FAILURE", "CANCELED"])
def test_a_training_that_did_not_succeed_is_asked_for_once(bench: Bench, ended: str) -> None:
    digest = bench.put(range(300))
    status = dg.DagsterRunStatus[ended]
    run = add_run(bench.instance, "train_and_judge", status, tags={DIGEST_TAG: digest})
    decision = bench.decide()
    assert decision.manifest is None
    assert f"was asked for before: run {run[:8]} ended as {ended.lower()}" in decision.reason
    grown = bench.put(range(310))
    assert bench.decide().manifest == grown


@pytest.mark.parametrize("job", ["train_and_judge", "refresh_demo"])
def test_it_waits_for_what_is_at_work(bench: Bench, job: str) -> None:
    bench.put(range(300))
    run = add_run(bench.instance, job, dg.DagsterRunStatus.STARTING)
    decision = bench.decide()
    assert decision.manifest is None
    assert decision.reason.startswith(f"{job} (run {run[:8]}, starting, ")


def test_a_schedule_leaves_a_tick_out_while_its_last_refresh_is_at_work(
    tmp_path: Path,
) -> None:
    sites = {"OMOKAGE_SITES": "demo,konachan", "OMOKAGE_REFRESH": "konachan=0 5 * * mon"}
    settings = read_settings({"OMOKAGE_HOME": str(tmp_path), **sites})
    schedules = build_defs(settings=settings).schedules or []
    found = {one.name: one for one in schedules if one.name.startswith("refresh_")}
    crons = {name: getattr(one, "cron_schedule", "") for name, one in found.items()}
    assert crons == {
        "refresh_demo_schedule": "0 4 * * *", "refresh_konachan_schedule": "0 5 * * mon",
    }  # fmt: skip
    skipped = {}
    quiet = {"telemetry": {"enabled": False}}
    with dg.DagsterInstance.local_temp(str(tmp_path), overrides=quiet) as instance:
        run = add_run(instance, "refresh_demo", dg.DagsterRunStatus.STARTED)
        for name, schedule in found.items():
            assert isinstance(schedule, dg.ScheduleDefinition)
            with dg.build_schedule_context(instance=instance) as context:
                skipped[name] = schedule.evaluate_tick(context).skip_message or ""
    assert skipped["refresh_konachan_schedule"] == ""
    assert skipped["refresh_demo_schedule"].startswith(f"refresh_demo (run {run[:8]}, running, ")


def add_run(
    instance: dg.DagsterInstance,
    job: str,
    status: dg.DagsterRunStatus,
    *,
    tags: dict[str, str] | None = None,
    pools: Collection[str] = (),
) -> str:
    """Puts a run of a job into the instance, as if it had come so far; returns its id."""
    needs = RunOpConcurrency(
        root_key_counts={}, has_unconstrained_root_nodes=True, all_pools=set(pools)
    )
    run_id = dg.DagsterRun(job_name=job).run_id
    run = dg.DagsterRun(
        job_name=job, run_id=run_id, status=status, tags=tags or {}, run_op_concurrency=needs
    )
    instance.add_run(run)
    return run_id
