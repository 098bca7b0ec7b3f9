"""Sensors that start runs: a training on a manifest that has grown, a sheet of a moved champion."""

import functools
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc

from assets.resources import StoreResource, TrackingResource
from dataset.errors import OmokageError
from dataset.manifest import CURRENT_PATH, SPLITS, Manifest, load_manifest
from dataset.schemas import batches, manifest_schema
from dataset.store import Store
from dataset.takedown import CURRENT_GENERATOR
from models.registry.promotion import PromotionBusyError, champions, lock_folder, notice
from models.registry.promotion_log import PERSON
from pipeline.instance import in_words, unfinished_run
from pipeline.jobs import champion_sheet_job, train_and_judge
from pipeline.run_config import automatic_run_config
from pipeline.settings import Settings, Threshold, parse_threshold, percent

EVERY_S = 60
DIGEST_TAG = "omokage/manifest"
REASON_TAG = "omokage/reason"
MANIFEST = dg.AssetKey("manifest")
LOOKED_BACK = 50  # runs in a row that may have ended before a check that they planned


def growth_sensor(
    settings: Settings, *, checks: Sequence[dg.AssetCheckKey], jobs: Collection[str]
) -> dg.SensorDefinition:
    """Returns the sensor `train_when_grown`.

    checks: the blocking checks of the manifest and of all that it is made from. jobs: names of the
    jobs that change the training set or train; while a run of theirs is at work it waits.
    """
    threshold = parse_threshold(settings.grow)

    @dg.sensor(
        name="train_when_grown",
        job=train_and_judge,
        minimum_interval_seconds=EVERY_S,
        default_status=dg.DefaultSensorStatus.STOPPED,
        description="Asks for a training when the manifest has grown beyond what the current "
        f"generator learnt from (OMOKAGE_GROW: {threshold.words}), once a digest, and only when "
        "all blocking checks have passed on what is there now.",
    )
    def train_when_grown(
        context: dg.SensorEvaluationContext, store: StoreResource
    ) -> dg.RunRequest | dg.SkipReason:
        decision = decide(context.instance, store.open(), threshold, checks=checks, jobs=jobs)
        if decision.manifest is None:
            return dg.SkipReason(f"{decision.reason[0].upper()}{decision.reason[1:]}.")
        return dg.RunRequest(
            run_key=decision.manifest,
            run_config=automatic_run_config(settings, train_and_judge.name),
            tags={DIGEST_TAG: decision.manifest, REASON_TAG: decision.reason},
        )

    return train_when_grown


@dataclass(frozen=True)
class Decision:
    """Whether to train, and why: `manifest` is the digest to train on, None for none."""

    manifest: str | None
    reason: str


def decide(
    instance: dg.DagsterInstance,
    store: Store,
    threshold: Threshold,
    *,
    checks: Sequence[dg.AssetCheckKey],
    jobs: Collection[str],
) -> Decision:
    """Decides whether the manifest that stands in the store is to be trained on now.

    Raises OmokageError if the manifest or generators/current.json is damaged.
    """
    if not store.exists(CURRENT_PATH):
        return Decision(
            None, "there is no manifest yet; run a refresh of a site, or refresh_dataset"
        )
    manifest = load_manifest(store, None)
    learnt = (
        store.read_json(CURRENT_GENERATOR)["manifest"] if store.exists(CURRENT_GENERATOR) else None
    )
    if learnt == manifest.digest:
        faces = manifest.train_rows + manifest.eval_rows
        return Decision(
            None,
            f"the generator learnt from this very manifest ({manifest.digest[:12]}, {faces:,} "
            "faces): nothing is new",
        )
    hindrance = (
        _at_work(instance, jobs)
        or _not_materialised(instance, manifest)
        or _unpassed(instance, checks)
        or _requested_before(instance, manifest)
    )
    if hindrance:
        return Decision(None, hindrance)
    return _by_growth(store, threshold, manifest, learnt=learnt)


def _by_growth(
    store: Store, threshold: Threshold, manifest: Manifest, *, learnt: str | None
) -> Decision:
    if learnt is None:
        faces = manifest.train_rows + manifest.eval_rows
        return Decision(
            manifest.digest, f"there is no generator yet, and the manifest has {faces:,} faces"
        )
    growth = growth_since(store, learnt, manifest)
    if not growth.known or threshold.reached(growth.new, growth.learnt):
        return Decision(manifest.digest, f"{growth.words}, {threshold.words}")
    return Decision(None, f"{growth.words}, {threshold.words}")


def _at_work(instance: dg.DagsterInstance, jobs: Collection[str]) -> str:
    run = unfinished_run(instance, jobs)
    if run is None:
        return ""
    return (
        f"{in_words(run)} has not ended; the manifest is looked at after it (terminate it on its "
        "page if it hangs or was killed)"
    )


def _not_materialised(instance: dg.DagsterInstance, manifest: Manifest) -> str:
    """Says so if the manifest in the store is not the one that Dagster and its checks know."""
    event = instance.get_latest_materialization_event(MANIFEST)
    made = event.asset_materialization if event else None
    known = made.metadata.get("digest") if made else None
    if known is not None and known.value == manifest.digest:
        return ""
    of_dagster = f"that of the last materialisation ({str(known.value)[:12]})" if known else "one"
    return (
        f"the manifest in the home ({manifest.digest[:12]}) is not {of_dagster} that Dagster has "
        "checked; materialise manifest, so that its checks run"
    )


def _unpassed(instance: dg.DagsterInstance, checks: Sequence[dg.AssetCheckKey]) -> str:
    faults = unpassed_checks(instance, checks)
    if not faults:
        return ""
    more = f" (and {len(faults) - 1} more)" if len(faults) > 1 else ""
    return f"{faults[0]}{more}; nothing is trained past a blocking check"


def _requested_before(instance: dg.DagsterInstance, manifest: Manifest) -> str:
    tags = {DIGEST_TAG: manifest.digest}
    runs = instance.get_runs(dg.RunsFilter(job_name=train_and_judge.name, tags=tags), limit=1)
    if not runs:
        return ""
    run, of = runs[0], f"a training on this manifest ({manifest.digest[:12]})"
    return (
        f"{of} was asked for before: run {run.run_id[:8]} ended as {run.status.value.lower()}. It "
        "is asked for once; re-execute that run to try again"
    )


def guarding_checks(
    assets: Sequence[dg.AssetsDefinition],
    checks: Sequence[dg.AssetChecksDefinition],
    guarded: str,
) -> list[dg.AssetCheckKey]:
    """Returns the blocking checks of the asset `guarded` and of all that it is made from."""
    chain = dg.AssetSelection.assets(guarded).upstream().resolve(assets)
    return [
        spec.key
        for check in checks
        for spec in check.check_specs
        if spec.blocking and spec.asset_key in chain
    ]


def unpassed_checks(instance: dg.DagsterInstance, checks: Sequence[dg.AssetCheckKey]) -> list[str]:
    """Returns what stands against each check: that it failed, or did not run on what is there now.

    A check that fails as a warning only (severity WARN) lets Dagster go on, and us.
    """
    return [fault for key in checks for fault in _fault(instance, key)]


def _fault(instance: dg.DagsterInstance, key: dg.AssetCheckKey) -> Iterator[str]:
    asset = key.asset_key.to_user_string()
    made = instance.fetch_materializations(key.asset_key, limit=1).records
    if not made:
        yield f"{asset} was never materialised, so its blocking check {key.name} has not run"
        return
    evaluation = _last_evaluation(instance, key)
    if evaluation is None or not _is_of(evaluation, made[0].storage_id):
        yield f"the blocking check {key.name} has not run since {asset} was materialised"
    elif not evaluation.passed and evaluation.severity == dg.AssetCheckSeverity.ERROR:
        yield f'the blocking check {key.name} of {asset} failed: "{evaluation.description}"'


def _last_evaluation(
    instance: dg.DagsterInstance, key: dg.AssetCheckKey
) -> dg.AssetCheckEvaluation | None:
    """The last time that it came to a verdict: runs that ended before it have only planned it."""
    history = instance.event_log_storage.get_asset_check_execution_history(key, limit=LOOKED_BACK)
    verdicts = (record.evaluation for record in history)
    return next((one for one in verdicts if isinstance(one, dg.AssetCheckEvaluation)), None)


def _is_of(evaluation: dg.AssetCheckEvaluation, storage_id: int) -> bool:
    target = evaluation.target_materialization_data
    return target is not None and target.storage_id == storage_id


_ROWS_AT_ONCE = 65_536


@dataclass(frozen=True)
class Growth:
    """A manifest beside the one that the current generator learnt from."""

    faces: int
    learnt: int  # 0 if what was learnt is not known any more
    new: int  # not among the learnt ones
    gone: int  # learnt ones that are not there any more
    known: bool = True  # the learnt manifest is still there

    @property
    def words(self) -> str:
        """Both numbers and what lies between them, as the beginning of a sentence."""
        if not self.known:
            return (
                f"the manifest has {self.faces:,} faces, and the one that the generator learnt "
                "from is not there any more: all count as new"
            )
        gone = f", {self.gone:,} of the learnt ones are gone" if self.gone else ""
        return (
            f"the manifest has {self.faces:,} faces, {self.learnt:,} were learnt from: "
            f"{self.new:,} new ({percent(self.new / self.learnt)} more){gone}"
        )


def growth_since(store: Store, learnt_digest: str, now: Manifest) -> Growth:
    """Compares the faces of `now` with those of the manifest that was learnt from, by face_id.

    Without the learnt manifest's tables its row count is compared; without it all faces are new.
    Raises SchemaError for a damaged table of `now`.
    """
    return _growth(store.root, learnt_digest, now.digest)


@functools.lru_cache(maxsize=4)  # by content, so it holds; a sensor asks every minute
def _growth(root: str, learnt_digest: str, digest: str) -> Growth:
    store = Store(root)
    now = load_manifest(store, digest)
    faces = now.train_rows + now.eval_rows
    try:
        learnt = load_manifest(store, learnt_digest)
    except OmokageError:  # removed by a person, or of another version of this program
        return Growth(faces, learnt=0, new=faces, gone=0, known=False)
    rows = learnt.train_rows + learnt.eval_rows
    paths = [f"{learnt.folder}/{split}.parquet" for split in SPLITS]
    if not all(map(store.exists, paths)):
        return Growth(faces, rows, new=max(0, faces - rows), gone=max(0, rows - faces))
    known, there = _face_ids(store, learnt), _face_ids(store, now)
    both = pc.sum(pc.is_in(there, value_set=known)).as_py() or 0
    return Growth(faces, rows, new=len(there) - both, gone=len(known) - both)


def _face_ids(store: Store, manifest: Manifest) -> pa.Array:
    schema = manifest_schema(manifest.labels)
    parts = [
        batch.column("face_id")
        for split in SPLITS
        for batch in batches(
            store,
            f"{manifest.folder}/{split}.parquet",
            declared=schema,
            columns=["face_id"],
            rows=_ROWS_AT_ONCE,
        )
    ]
    return pa.concat_arrays(parts) if parts else pa.array([], pa.string())


LOCK_WAIT_S = 5.0  # a tick has a minute; the next one looks again


@dg.sensor(
    job=champion_sheet_job,
    minimum_interval_seconds=EVERY_S,
    # It looks, and writes only what a person's own move has changed already.
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Records a move of the alias `champion` that was made by hand in MLflow, puts "
    "`previous` right, and asks for a fresh sample sheet.",
)
def champion_moved(
    context: dg.SensorEvaluationContext, store: StoreResource, tracking: TrackingResource
) -> dg.SensorResult | dg.SkipReason:
    """Asks for one sheet a move; the cursor is the number of the last move that was looked at."""
    registry = tracking.open()
    if not registry.database_exists():
        return dg.SkipReason("there is no registry yet")
    try:
        notice(registry, lock_folder(store.open()), patience_s=LOCK_WAIT_S)
    except PromotionBusyError as busy:
        return dg.SkipReason(str(busy))
    moves = champions(registry)
    if not moves:
        return dg.SkipReason("there is no champion yet")
    last, seen = moves[0], int(context.cursor or 0)
    by_person = last.by == PERSON and last.to and last.number > seen
    if not by_person:
        return dg.SensorResult(
            skip_reason=dg.SkipReason(
                f"the last move, {last.number} to version {last.to or '(none)'}, is known"
            ),
            cursor=str(last.number),
        )
    request = dg.RunRequest(
        run_key=str(last.number),
        run_config={"ops": {"draw_sheet": {"config": {"version": last.to}}}},
        tags={"omokage/move": str(last.number)},
    )
    return dg.SensorResult(run_requests=[request], cursor=str(last.number))
