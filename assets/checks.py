"""Asset checks: each table has its declared columns, and enough rows came through each stage."""

from collections.abc import Iterator, Sequence

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc

from assets.resources import StoreResource
from crawlers.audit import audit
from dataset.errors import OmokageError
from dataset.labels import LABELS_PATH
from dataset.manifest import load_manifest, read_split
from dataset.schemas import FACES, FACES_PATH, POSTS, POSTS_PATH, read_table

MIN_KEPT_FRAC = 0.2
WANTED_LABELS = 23
MIN_TRAIN_ROWS = 256
MIN_EVAL_ROWS = 32


def table_checks() -> list[dg.AssetChecksDefinition]:
    """Returns all checks, in the order of the chain."""
    return [
        _schema_check("posts", POSTS_PATH, POSTS),
        posts_kept,
        posts_are_safe,
        no_orphan_blobs,
        ledger_and_files_agree,
        _schema_check("faces", FACES_PATH, FACES),
        faces_kept,
        labels_wanted,
        manifest_schema_and_rows,
    ]


def _schema_check(asset: str, path: str, declared: pa.Schema) -> dg.AssetChecksDefinition:
    @dg.asset_check(
        asset=asset,
        name=f"{asset}_schema",
        blocking=True,
        description=f"`{path}` has exactly the declared columns.",
    )
    def check(store: StoreResource) -> dg.AssetCheckResult:
        try:
            table = read_table(store.open(), path, declared=declared)
        except OmokageError as error:
            return dg.AssetCheckResult(passed=False, description=f"{error} Build {asset} again.")
        return dg.AssetCheckResult(
            passed=True, metadata={"columns": len(declared), "rows": table.num_rows}
        )

    return check


@dg.asset_check(asset="posts", blocking=True)
def posts_kept(store: StoreResource) -> dg.AssetCheckResult:
    """Enough of the boards' posts are kept."""
    table = read_table(store.open(), POSTS_PATH, declared=POSTS)
    kept = pc.sum(pc.is_null(table["drop_reason"])).as_py() or 0
    hint = "Do the search words ask for safe pictures of characters?"
    return _part("posts were kept", kept, table.num_rows, hint=hint)


@dg.asset_check(asset="posts", blocking=True)
def posts_are_safe(store: StoreResource) -> dg.AssetCheckResult:
    """No kept post has another rating than general."""
    table = read_table(store.open(), POSTS_PATH, declared=POSTS)
    stored = table.filter(pc.is_valid(table["sha256"]))
    unsafe = stored.filter(pc.not_equal(stored["rating"], "general"))
    names = [f"{row['board']} {row['post_id']}" for row in unsafe.slice(0, 10).to_pylist()]
    return dg.AssetCheckResult(
        passed=unsafe.num_rows == 0,
        description=(
            f"{unsafe.num_rows:,} of {stored.num_rows:,} stored posts are not rated general"
            + (f": {', '.join(names)}. Put them onto the takedown list." if names else ".")
        ),
        metadata={"unsafe": unsafe.num_rows, "stored": stored.num_rows},
    )


@dg.asset_check(asset="posts")
def no_orphan_blobs(store: StoreResource) -> dg.AssetCheckResult:
    """Every file under `blobs/` is named by a post of the ledger."""
    found = audit(store.open(), hashed=0)
    left = [*found.orphans, *found.temporary]
    # A crawl at work writes a blob before its post says so.
    passed = found.crawling or not left
    number = f"{len(left):,} of {found.blobs + len(found.temporary):,} files belong to no post"
    return dg.AssetCheckResult(
        passed=passed,
        severity=dg.AssetCheckSeverity.WARN,
        description=f"{number}."
        if passed
        else f"{number}: {_first(left)}. A killed crawl left them; the next build of posts removes "
        "them while no crawl is at work.",
        metadata={"orphans": len(left), "blobs": found.blobs, "crawling": found.crawling},
    )


@dg.asset_check(asset="posts", blocking=True)
def ledger_and_files_agree(store: StoreResource) -> dg.AssetCheckResult:
    """Every blob that a post names is there in its size; the newest are what their names say."""
    found = audit(store.open())
    faults = {
        "missing": found.missing,
        "of another size": found.wrong_size,
        "of other bytes than their names say": found.wrong_sha256,
    }
    told = [f"{len(paths):,} {what}: {_first(paths)}" for what, paths in faults.items() if paths]
    number = f"{found.named:,} blobs are named, {found.hashed:,} were read"
    hint = (
        "Has something else written into blobs/? Remove the damaged files, build posts (it queues "
        "what is gone) and crawl again."
    )
    return dg.AssetCheckResult(
        passed=not told,
        description=f"{number}; {'; '.join(told)}. {hint}" if told else f"{number}; all is there.",
        metadata={what.replace(" ", "_"): len(paths) for what, paths in faults.items()}
        | {"named": found.named, "hashed": found.hashed},
    )


def _first(paths: Sequence[str]) -> str:
    return ", ".join(paths[:5]) + (", …" if len(paths) > 5 else "")


@dg.asset_check(asset="faces", blocking=True)
def faces_kept(store: StoreResource) -> dg.AssetCheckResult:
    """Enough of the kept pictures gave a face."""
    opened = store.open()
    posts = read_table(opened, POSTS_PATH, declared=POSTS)
    faces = read_table(opened, FACES_PATH, declared=FACES)
    blobs = pc.count_distinct(posts.filter(pc.is_null(posts["drop_reason"]))["sha256"]).as_py()
    kept = faces.filter(pc.is_null(faces["drop_reason"]))
    with_face = pc.count_distinct(kept["sha256"]).as_py()
    hint = "Is this a board of portraits? Are the pictures faces already (option `cropped`)?"
    return _part("pictures gave a face", with_face, blobs, hint=hint)


@dg.asset_check(asset="labels")
def labels_wanted(store: StoreResource) -> dg.AssetCheckResult:
    """As many labels as wanted were frequent enough."""
    chosen = store.open().read_json(LABELS_PATH)["labels"]
    return dg.AssetCheckResult(
        passed=len(chosen) >= WANTED_LABELS,
        severity=dg.AssetCheckSeverity.WARN,
        description=(
            f"{len(chosen)} of {WANTED_LABELS} wanted labels: {', '.join(chosen)}. With fewer, the "
            "generator obeys just these; more pictures with appearance tags would give more."
        ),
        metadata={"labels": len(chosen)},
    )


@dg.asset_check(asset="manifest", name="manifest_rows", blocking=True)
def manifest_schema_and_rows(store: StoreResource) -> dg.AssetCheckResult:
    """Both splits have the declared columns and enough rows to train and to judge."""
    opened = store.open()
    try:
        current = load_manifest(opened, None)
        rows = {split: read_split(opened, current, split).num_rows for split in ("train", "eval")}
    except OmokageError as error:
        return dg.AssetCheckResult(passed=False, description=f"{error} Build manifest again.")
    short = list(_too_short(rows))
    return dg.AssetCheckResult(
        passed=not short,
        description="; ".join(short) + ". Crawl more posts." if short else "Both splits are whole.",
        metadata={"train_rows": rows["train"], "eval_rows": rows["eval"]},
    )


def _too_short(rows: dict[str, int]) -> Iterator[str]:
    for split, limit in (("train", MIN_TRAIN_ROWS), ("eval", MIN_EVAL_ROWS)):
        if rows[split] < limit:
            yield f"{rows[split]:,} rows in the {split} split (limit {limit:,})"


def _part(what: str, count: int, total: int, *, hint: str) -> dg.AssetCheckResult:
    part = count / total if total else 0.0
    passed = part >= MIN_KEPT_FRAC
    number = f"{count:,} of {total:,} {what} ({part:.1%}, limit {MIN_KEPT_FRAC:.0%})"
    return dg.AssetCheckResult(
        passed=passed,
        description=f"{number}." if passed else f"{number}. {hint}",
        metadata={"kept": count, "total": total, "part": part},
    )
