"""Asset checks: each table has its declared columns, and enough rows came through each stage."""

import datetime as dt
from collections import Counter
from collections.abc import Callable, Iterator, Sequence

import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from assets.reporting import plain_failures
from assets.resources import StoreResource
from crawlers.audit import audit
from crawlers.ledger import Ledger
from crawlers.ledger_file import FILE
from dataset.digests import sha256_prefixes
from dataset.errors import OmokageError
from dataset.labels import load_labels, read_labels
from dataset.manifest import SPLITS, Manifest, check_split, load_manifest
from dataset.policy import TAKEDOWN_FILE
from dataset.schemas import (
    FACES,
    FACES_PATH,
    MACHINE_LABELS_PATH,
    POSTS,
    POSTS_PATH,
    ROWS_WITH_TAGS,
    SCANNED,
    batches,
    faces_path,
    machine_labels_schema,
    posts_path,
)
from dataset.store import Store

MIN_KEPT_FRAC = 0.2
MAX_RECORD_AGE = dt.timedelta(days=60)  # twice the round in which a daily crawl reads all again
MAX_OLD_FRAC = 0.01
NAMED = 10  # posts, of those at fault
MIN_TRAIN_ROWS = 256
MIN_EVAL_ROWS = 32
TAKE_DOWN = (
    "Their pictures must not stay: write a line such as `post danbooru/123` for each into "
    f"{TAKEDOWN_FILE} under the home, and materialise posts, which removes them."
)


def table_checks() -> list[dg.AssetChecksDefinition]:
    """Returns all checks, in the order of the chain."""
    return [
        _schema_check("posts", POSTS_PATH, lambda _store: POSTS),
        posts_kept,
        posts_are_safe,
        no_orphan_blobs,
        ledger_and_files_agree,
        records_are_recent,
        _schema_check("faces", FACES_PATH, lambda _store: FACES),
        faces_kept,
        labels_wanted,
        _schema_check("machine_labels", MACHINE_LABELS_PATH, _machine_labels),
        manifest_schema_and_rows,
    ]


def _machine_labels(store: Store) -> pa.Schema:
    return machine_labels_schema(read_labels(store)[0])


def _schema_check(
    asset: str, path: str, declared_in: Callable[[Store], pa.Schema]
) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=asset,
        name=f"{asset}_schema",
        blocking=True,
        description=f"`{path}` has exactly the declared columns, and no empty cell where none may "
        "be.",
    )
    def check(store: StoreResource) -> dg.AssetCheckResult:
        opened = store.open()
        try:
            declared = declared_in(opened)
            required = [field.name for field in declared if not field.nullable]
            parts = batches(opened, path, declared=declared, columns=required, rows=ROWS_WITH_TAGS)
            rows = sum(part.num_rows for part in parts)
        except OmokageError as error:
            return dg.AssetCheckResult(
                passed=False,
                description=f"{error}\nWhat is below would misread it, so it waits. Materialise "
                f"{asset} again: it writes the table anew. If it stays so, something else writes "
                f"to {opened.url(path)}.",
            )
        return dg.AssetCheckResult(passed=True, metadata={"columns": len(declared), "rows": rows})

    return check


@dg.asset_check(asset="posts", blocking=True)
def posts_kept(store: StoreResource) -> dg.AssetCheckResult:
    """Enough of the boards' posts are kept."""
    opened = store.open()
    with plain_failures():
        outcomes = _outcomes(opened, posts_path(opened), POSTS)
    return _part(
        "posts were kept",
        outcomes[None],
        outcomes.total(),
        cause=_reasons_in_words(outcomes),
        hint="Do the crawl's search words (field `tags`) ask for safe pictures of characters? "
        "not_fetched means that the pictures are still to come: crawl again.",
    )


@dg.asset_check(asset="posts", blocking=True)
def posts_are_safe(store: StoreResource) -> dg.AssetCheckResult:
    """No kept post has another rating than general."""
    opened = store.open()
    unsafe = stored = 0
    names: list[str] = []
    with plain_failures():
        columns = ("board", "post_id", "sha256", "rating")
        for batch in batches(
            opened, posts_path(opened), declared=POSTS, columns=columns, rows=SCANNED
        ):
            with_picture = pc.is_valid(batch["sha256"])
            found = batch.filter(pc.and_(with_picture, pc.not_equal(batch["rating"], "general")))
            stored += pc.sum(with_picture).as_py() or 0
            unsafe += found.num_rows
            shown = found.slice(0, NAMED - len(names)).to_pylist()
            names += [f"{row['board']} {row['post_id']}" for row in shown]
    return dg.AssetCheckResult(
        passed=unsafe == 0,
        description=(
            f"{unsafe:,} of {stored:,} stored posts are not rated general"
            + (f": {_some(names, unsafe)}. {TAKE_DOWN}" if names else ".")
        ),
        metadata={"unsafe": unsafe, "stored": stored},
    )


@dg.asset_check(asset="posts")
def no_orphan_blobs(store: StoreResource) -> dg.AssetCheckResult:
    """Every file under `blobs/` is named by a post of the ledger."""
    with plain_failures():
        found = audit(store.open(), hashed=0)
    left = [*found.orphans, *found.temporary]
    # A crawl at work writes a blob before its post says so.
    passed = found.crawling or not left
    files = f"{found.blobs + len(found.temporary):,} files{found.of_a_part}"
    number = f"{len(left):,} of {files} belong to no post"
    return dg.AssetCheckResult(
        passed=passed,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{number}."
        if passed
        else f"{number}: {_first(left)}. A killed crawl left them, or their posts were refused "
        "since; the next build of posts moves them to trash/ while no crawl is at work.",
        metadata={"orphans": len(left), "blobs": found.blobs, "crawling": found.crawling},
    )


@dg.asset_check(asset="posts", blocking=True)
def ledger_and_files_agree(store: StoreResource) -> dg.AssetCheckResult:
    """Every blob that a post names is there in its size; the newest are what their names say."""
    with plain_failures():
        found = audit(store.open())
    faults = {
        "missing": found.missing,
        "of another size": found.wrong_size,
        "of other bytes than their names say": found.wrong_sha256,
    }
    lines = [f"{len(paths):,} {what}: {_first(paths)}" for what, paths in faults.items() if paths]
    number = f"{found.named:,} blobs are named{found.of_a_part}, {found.hashed:,} were read"
    hint = (
        "Has something else written into blobs/? Remove the damaged files, build posts (it queues "
        "what is gone) and crawl again."
    )
    return dg.AssetCheckResult(
        passed=not lines,
        description=f"{number}; {'; '.join(lines)}. {hint}"
        if lines
        else f"{number}; all is there.",
        metadata={what.replace(" ", "_"): len(paths) for what, paths in faults.items()}
        | {"named": found.named, "hashed": found.hashed},
    )


@dg.asset_check(asset="posts")
def records_are_recent(store: StoreResource) -> dg.AssetCheckResult:
    """The boards have shown nearly all kept posts lately, as they are now."""
    opened, ages = store.open(), {}
    if opened.state.exists(FILE):
        with plain_failures(), Ledger.of(opened) as ledger:
            ages = ledger.ages(older_than=MAX_RECORD_AGE)
    old, kept = (sum(counts) for counts in zip(*ages.values(), strict=True)) if ages else (0, 0)
    passed = old <= kept * MAX_OLD_FRAC
    boards = ", ".join(f"{board} {count:,}" for board, (count, _) in ages.items() if count)
    number = (
        f"{old:,} of {kept:,} kept posts of boards ({old / max(kept, 1):.1%}, limit "
        f"{MAX_OLD_FRAC:.0%}) were not seen on their board for {MAX_RECORD_AGE.days} days"
    )
    return dg.AssetCheckResult(
        passed=passed,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{number}."
        if passed
        else f"{number}: {boards}. What their boards have rated or tagged anew, deleted or banned "
        "since is not known. Crawl these boards more often, or with a greater recheck_frac.",
        metadata={"old": old, "kept": kept},
    )


def _first(paths: Sequence[str]) -> str:
    return _some(paths[:5], len(paths))


def _some(names: Sequence[str], total: int) -> str:
    return ", ".join(names) + (", …" if total > len(names) else "")


@dg.asset_check(asset="faces", blocking=True)
def faces_kept(store: StoreResource) -> dg.AssetCheckResult:
    """Enough of the kept pictures gave a face."""
    opened = store.open()
    with plain_failures():
        pictures, _ = _kept_pictures(opened, posts_path(opened), POSTS)
        with_face, outcomes = _kept_pictures(opened, faces_path(opened), FACES)
    return _part(
        "pictures gave a face",
        with_face,
        pictures,
        cause=_reasons_in_words(outcomes),
        hint="Is this a board of portraits? Are the pictures faces already (field `cropped`)? Are "
        "the faces smaller than the field `min_side_px`?",
    )


@dg.asset_check(asset="labels")
def labels_wanted(store: StoreResource) -> dg.AssetCheckResult:
    """As many labels as wanted were frequent enough."""
    with plain_failures():
        made = load_labels(store.open())
    chosen, wanted = made.labels, int(made.settings["count"])
    passed = len(chosen) >= wanted
    number = f"{len(chosen)} of {wanted} wanted labels: {', '.join(chosen)}."
    return dg.AssetCheckResult(
        passed=passed,
        severity=dg.AssetCheckSeverity.WARN,
        description=number
        if passed
        else f"{number} The generator will obey just these. More would come from more pictures "
        f"with appearance tags (now {made.crops:,} crops), or from a lower `min_frac` of labels "
        f"(now {made.settings['min_frac']:g}).",
        metadata={"labels": len(chosen), "wanted": wanted},
    )


@dg.asset_check(asset="manifest", name="manifest_rows", blocking=True)
def manifest_schema_and_rows(store: StoreResource) -> dg.AssetCheckResult:
    """Both splits have the declared columns and enough rows to train and to judge."""
    opened = store.open()
    try:
        current = load_manifest(opened, None)
        for split in SPLITS:
            check_split(opened, current, split)
    except OmokageError as error:
        return dg.AssetCheckResult(
            passed=False,
            description=f"{error}\nNothing is trained on it. Materialise manifest again: it writes "
            "the tables anew.",
        )
    rows = {split: current.rows(split) for split in SPLITS}
    short = list(_too_short(rows))
    return dg.AssetCheckResult(
        passed=not short,
        description=f"{'; '.join(short)}. {_more_rows(current)}"
        if short
        else "Both splits are whole.",
        metadata={"train_rows": rows["train"], "eval_rows": rows["eval"]},
    )


def _too_short(rows: dict[str, int]) -> Iterator[str]:
    for split, limit in (("train", MIN_TRAIN_ROWS), ("eval", MIN_EVAL_ROWS)):
        if rows[split] < limit:
            yield f"{rows[split]:,} rows in the {split} split (limit {limit:,})"


def _more_rows(manifest: Manifest) -> str:
    """What gives more rows: the labels that are missing, the other split's, or more pictures."""
    advice = [
        "Too few faces to train on or to judge by: crawl more posts, or import pictures of your own"
    ]
    if manifest.untagged:
        advice.append(f"{manifest.untagged:,} faces were left out for want of labels")
    if manifest.train_rows >= MIN_TRAIN_ROWS:
        advice.append(f"or raise eval_frac of manifest (now {manifest.eval_frac:g})")
    return "; ".join(advice) + "."


def _outcomes(store: Store, path: str, declared: pa.Schema) -> Counter[str | None]:
    """How many rows of a table were dropped by which reason: None are those that were kept."""
    outcomes: Counter[str | None] = Counter()
    for batch in batches(store, path, declared=declared, columns=("drop_reason",), rows=SCANNED):
        outcomes.update(_counted(batch["drop_reason"]))
    return outcomes


def _counted(reasons: pa.Array) -> dict[str | None, int]:
    return {one["values"]: one["counts"] for one in pc.value_counts(reasons).to_pylist()}


def _kept_pictures(store: Store, path: str, declared: pa.Schema) -> tuple[int, Counter[str | None]]:
    """The number of pictures of kept rows, and the outcomes of all rows.

    By 64 bits of the pictures' sha256s: 8 bytes of each in memory. Of ten million one in 400,000
    tables would have two pictures that are taken for one.
    """
    found = [np.empty(0, np.uint64)]
    outcomes: Counter[str | None] = Counter()
    columns = ("sha256", "drop_reason")
    for batch in batches(store, path, declared=declared, columns=columns, rows=SCANNED):
        outcomes.update(_counted(batch["drop_reason"]))
        kept = batch["sha256"].filter(pc.is_null(batch["drop_reason"]))
        prefixes, is_sha256 = sha256_prefixes(kept)
        found.append(prefixes[is_sha256])
    return len(np.unique(np.concatenate(found))), outcomes


def _reasons_in_words(outcomes: Counter[str | None]) -> str:
    """The three most frequent drop reasons: `most were dropped as rating (120), banned (9)`."""
    dropped = Counter({reason: count for reason, count in outcomes.items() if reason is not None})
    if not dropped:
        return ""
    shown = ", ".join(f"{reason} ({count:,})" for reason, count in dropped.most_common(3))
    return f"Most of what was dropped: {shown}. "


def _part(what: str, count: int, total: int, *, cause: str, hint: str) -> dg.AssetCheckResult:
    part = count / total if total else 0.0
    passed = part >= MIN_KEPT_FRAC
    number = f"{count:,} of {total:,} {what} ({part:.1%}, limit {MIN_KEPT_FRAC:.0%})"
    return dg.AssetCheckResult(
        passed=passed,
        description=f"{number}." if passed else f"{number}. {cause}{hint}",
        metadata={"kept": count, "total": total, "part": part},
    )
