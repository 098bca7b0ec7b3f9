"""Retention: which trainings, evaluations, manifests and packs a home still needs, and why.

`retained` decides, over a graph without any files. `Retention` reads that graph from a home and its
registry, and removes what nothing needs. Blobs, crops, tables, the ledger and the registry's own
copies of models are no part of it; Dagster's history is in `pipeline.retention`.
"""

import contextlib
import dataclasses
import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dataset.manifest import CURRENT_PATH, SPLITS, TOMBSTONE
from dataset.store import FileFacts, Files, Store, file_lock
from dataset.takedown import CHECKPOINT, CURRENT_GENERATOR, EVALUATION, TRAINED
from models.registry.client import RUN_KEY, TrackingClient
from models.registry.model_uri import without_secrets
from models.registry.program import FOLDER
from models.registry.promotion import ROLLED_BACK, lock_folder
from models.registry.versions import DAGSTER_RUN, MANIFEST, learnt_manifests

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import Run
    from mlflow.entities.model_registry import ModelVersion

GRACE_S = 86_400.0  # what is younger stays: a job may have begun that nothing names yet
JUDGED_ON = (
    "omokage.judged_on"  # tag of a run: manifests that its generator, now gone, was judged on
)

RUN, EVALUATED, GENERATOR, PACK, FACE_SET = KINDS = (  # in the order in which they are removed
    "MLflow runs",
    "evaluations",
    "generators",
    "packs",
    "manifests",
)
_NAMES = {  # of the folders of each kind
    EVALUATED: re.compile(r"evaluations/[0-9a-f]{12}/[0-9a-f]{12}-[0-9a-f]{12}"),
    GENERATOR: re.compile(r"generators/[0-9a-f]{12}-[0-9a-f]{12}(?:-from-[0-9a-f]{8})?"),
    PACK: re.compile(r"packed/[0-9a-f]{64}"),
    FACE_SET: re.compile(r"manifest/[0-9a-f]{64}"),
}
_FILES = {  # of each kind, below its folder; others are left alone
    EVALUATED: r"[^/]+\.(?:json|png)",
    GENERATOR: r"generator/[^/]+\.(?:json|safetensors)"
    r"|checkpoints/\d{10,16}/[^/]+\.(?:json|safetensors)"
    r"|samples/\d{10,16}\.png|evaluation/[^/]+/[^/]+\.(?:json|png)"
    r"|growth\.gif|labels\.png|progress\.jsonl|training\.lock",
    PACK: r"[a-z]+-\d+\.npy(?:\.part)?(?:\.json|\.lock)?",
    FACE_SET: rf"(?:{'|'.join(SPLITS)})\.parquet|manifest\.json",
}
_UNFINISHED = r"(?:.+/)?\.tmp-[^/]+"  # of a killed process
# Without these a folder is not taken for whole: they go first.
_NAMING = re.compile(
    rf".+/(?:{re.escape(EVALUATION)}|{re.escape(TRAINED)}|{re.escape(CHECKPOINT)}|manifest\.json"
    r"|[^/]+\.npy(?:\.part)?\.json)"
)
_POINTERS = {CURRENT_GENERATOR, CURRENT_PATH}
_WITHOUT_TRAININGS = {
    *("evaluations", "generators", "manifest", "packed", "blobs", "cache", "crops", "dagster"),
    *("faces", "imports", "ledger-backups", "mlflow", "quarantine", "reports", "review"),
    *("taggers", "takedowns", "trash"),
}


@dataclass(frozen=True)
class Thing:
    """What is removed as a whole: a folder of the home, or a run as `mlflow/<id>`.

    Attributes:
        needs: the names of what it cannot be opened without.
        modified_s: when it was last written, in seconds since 1970.
        files: paths of what is removed, those that make it whole first.

    """

    kind: str
    name: str
    needs: frozenset[str] = frozenset()
    modified_s: float = 0.0
    size_bytes: int = 0
    files: tuple[str, ...] = ()


def retained(
    things: Mapping[str, Thing],
    roots: Iterable[tuple[str, str]],
    *,
    now_s: float,
    grace_s: float = GRACE_S,
) -> dict[str, str]:
    """Returns the reason of each thing that stays, by name; what is not in it goes.

    roots: names of what is needed by itself, each with a reason, the weightier first; some may be
    no things. What was written within grace_s stays too. A thing that another one needs stays for
    the reason of that one.
    """
    young = [(name, "new") for name, one in things.items() if one.modified_s > now_s - grace_s]
    reasons: dict[str, str] = {}
    for waiting in (list(roots), young):
        for name, reason in waiting:  # which grows meanwhile
            if name in things and name not in reasons:
                reasons[name] = reason
                waiting += [(needed, reason) for needed in sorted(things[name].needs)]
    return reasons


def removal_order(things: Mapping[str, Thing], names: Collection[str]) -> list[str]:
    """Returns names so that each comes before what it needs: a kill leaves nothing half named."""
    done: list[str] = []
    seen: set[str] = set()

    def visit(name: str) -> None:
        seen.add(name)
        for needed in sorted(things[name].needs):
            if needed in names and needed not in seen:
                visit(needed)
        done.append(name)

    for name in sorted(names):
        if name not in seen:
            visit(name)
    done.reverse()
    return sorted(done, key=lambda name: KINDS.index(things[name].kind))


@dataclass(frozen=True)
class Retention:
    """What a home holds, and what of it stays.

    Attributes:
        reasons: why a thing stays, by its name; see `retained`.
        unknown: files and links among the folders that nothing here writes; they are left alone.
        dagster_runs: ids of Dagster's runs that made what stays.

    """

    store: Store
    tracking: TrackingClient | None
    things: dict[str, Thing]
    reasons: dict[str, str]
    unknown: list[str]
    dagster_runs: frozenset[str]

    @classmethod
    def of(
        cls, store: Store, tracking: TrackingClient | None, *, keep: int, now_s: float
    ) -> "Retention":
        """Reads a home and its registry; changes nothing.

        keep: how many of the newest trainings and manifests stay. tracking: None if there is no
        registry yet. Raises StoreError or RegistryError for what cannot be read: while it is not
        known what is needed, nothing goes.
        """
        things: dict[str, Thing] = {}
        unknown: list[str] = []
        for kind in _NAMES:
            found, others = _folders(_place(store, kind), kind)
            things |= {name: _with_needs(store, one) for name, one in found.items()}
            unknown += others
        roots = [
            *_current(store),
            *_newest(store, things, keep),
            *_elsewhere(store, unknown, things),
        ]
        dagster: dict[str, str] = {}
        if tracking is not None:
            runs = {f"mlflow/{run.info.run_id}": run for run in tracking.runs()}
            learnt = learnt_manifests(store, tracking)
            roots = [*_aliased(tracking, learnt), *roots, *_learnt(learnt)]
            roots += _runs_elsewhere(tracking, runs, things)
            for run in _runs_here(tracking, runs, things):
                things[run.name] = run
                owner = things[_generator_of(runs[run.name])]
                things[owner.name] = dataclasses.replace(owner, needs=owner.needs | {run.name})
            dagster = {name: run.data.tags.get(DAGSTER_RUN, "") for name, run in runs.items()}
            dagster |= {f"v{v.version}": v.tags.get(DAGSTER_RUN, "") for v, _ in learnt}
        reasons = retained(things, roots, now_s=now_s)
        made = {run for name, run in dagster.items() if name not in things or name in reasons}
        return cls(store, tracking, things, reasons, unknown, frozenset(made - {""}))

    @property
    def going(self) -> list[Thing]:
        """What nothing needs, in the order in which it is removed."""
        names = self.things.keys() - self.reasons.keys()
        return [self.things[name] for name in removal_order(self.things, names)]

    def remove(self, thing: Thing) -> str:
        """Removes a thing; returns why it could not, "" if it is gone.

        One that was written to since it was read stays, and so does one that is trained on.
        """
        if thing.kind == RUN:
            assert self.tracking is not None
            return _discard(self.tracking, thing.name.removeprefix("mlflow/"))
        place = _place(self.store, thing.kind)
        with contextlib.ExitStack() as held:
            if thing.kind == GENERATOR:
                lock = lock_folder(self.store) / thing.name / "training.lock"
                try:
                    held.enter_context(file_lock(lock, timeout_s=0))
                except TimeoutError:
                    return "a training is at work in it"
                self._note_judged(thing)
            found, _ = _folders(place, thing.kind, below=thing.name)
            now = found.get(thing.name)
            facts = None if now is None else (now.modified_s, set(now.files) - {_lock_of(thing)})
            if facts != (thing.modified_s, set(thing.files) - {_lock_of(thing)}):
                return "it was written to meanwhile"
            for path in (*thing.files, _lock_of(thing)):
                place.remove(path)
            within = [f"{thing.name}/{name}" for name in place.names(thing.name)]
            for path in (*within, thing.name, thing.name.rpartition("/")[0]):
                if not place.details(path):  # an empty folder, of a local home
                    place.remove(path)
        return ""

    def _note_judged(self, generator: Thing) -> None:
        """Notes on a run that stays whose faces its grids may show: takedowns look for them."""
        judged = " ".join(sorted(_digests(generator.needs)))
        for name in generator.needs & self.reasons.keys():
            if name in self.things and self.things[name].kind == RUN:
                assert self.tracking is not None
                with self.tracking.explained():
                    run_id = name.removeprefix("mlflow/")
                    self.tracking.client().set_tag(run_id, JUDGED_ON, judged)


def _place(store: Store, kind: str) -> Files:
    return store.scratch if kind == PACK else store


def _lock_of(thing: Thing) -> str:
    return f"{thing.name}/training.lock"


def _folders(place: Files, kind: str, *, below: str = "") -> tuple[dict[str, Thing], list[str]]:
    """Returns the things of a kind by name, without what they need, and what is no part of them."""
    pattern, top = _NAMES[kind], _NAMES[kind].pattern.partition("/")[0]
    files = re.compile(f"{_FILES[kind]}|{_UNFINISHED}")
    held: dict[str, dict[str, FileFacts]] = {}
    unknown = []
    for path, facts in sorted(place.details(below or top).items()):
        named = pattern.match(path)
        name, rest = (named[0], path[named.end() :]) if named else ("", "")
        if name and facts.is_file and rest[:1] == "/" and files.fullmatch(rest[1:]):
            held.setdefault(name, {})[path] = facts
        elif path not in _POINTERS and path.rpartition("/")[2] != TOMBSTONE:
            unknown.append(path)
    return {name: _thing(kind, name, facts) for name, facts in held.items()}, unknown


def _thing(kind: str, name: str, files: Mapping[str, FileFacts]) -> Thing:
    # The lock of a training is touched by whoever looks whether it is held.
    written = [one.modified_s for path, one in files.items() if not path.endswith(".lock")]
    return Thing(
        kind,
        name,
        modified_s=max(written, default=0.0),
        size_bytes=sum(one.size_bytes for one in files.values()),
        files=tuple(sorted(files, key=lambda path: (not _NAMING.fullmatch(path), path))),
    )


def _with_needs(store: Store, thing: Thing) -> Thing:
    needs = {f"manifest/{thing.name.removeprefix('packed/')}"} if thing.kind == PACK else set()
    if thing.kind in (GENERATOR, EVALUATED):
        needs = _named_by(store, thing.files)
    if thing.kind == GENERATOR:  # to be resumed
        needs |= {f"packed/{digest}" for digest in _learnt_from(store, thing.files)[:1]}
    return dataclasses.replace(thing, needs=frozenset(needs - {thing.name}))


def _named_by(store: Store, paths: Iterable[str]) -> set[str]:
    """Returns what the trainings and evaluations among these files need: manifests, an origin."""
    paths = list(paths)
    needs = {f"manifest/{digest}" for digest in _learnt_from(store, paths)}
    for facts in _facts(store, paths):
        needs |= {(facts.get("origin") or {}).get("folder", "")}
    for path in paths:
        if path.endswith(f"/{EVALUATION}"):
            needs |= {f"manifest/{store.read_json(path).get('manifest_digest', '')}"}
    return needs - {"", "manifest/"}


def _learnt_from(store: Store, paths: Iterable[str]) -> list[str]:
    """Returns the digests of the manifests that trainings learnt from, their own first."""
    both = [(facts, facts.get("origin") or {}) for facts in _facts(store, paths)]
    found = [own.get("manifest_digest") for own, _ in both]
    found += [origin.get("manifest_digest") for _, origin in both]
    return [digest for digest in found if digest]


def _facts(store: Store, paths: Iterable[str]) -> list[dict[str, Any]]:
    """Returns what each training among these files says of itself."""
    naming: dict[str, str] = {}
    for path in sorted(paths):
        if path.endswith(f"/{TRAINED}"):
            naming[path.removesuffix(f"/{TRAINED}")] = path
        elif path.endswith(f"/{CHECKPOINT}") and "/checkpoints/" in path:
            folder = path.rpartition("/checkpoints/")[0]
            if not naming.get(folder, "").endswith(TRAINED):
                naming[folder] = path  # the last one
    return [store.read_json(path) for path in naming.values()]


def _current(store: Store) -> Iterator[tuple[str, str]]:
    if store.exists(CURRENT_PATH):
        digest = store.read_json(CURRENT_PATH)["digest"]
        yield f"manifest/{digest}", "current"
        yield f"packed/{digest}", "current"
    if store.exists(CURRENT_GENERATOR):
        current = store.read_json(CURRENT_GENERATOR)
        yield current["folder"], "current"
        yield f"manifest/{current.get('manifest', '')}", "current"


def _newest(store: Store, things: Mapping[str, Thing], keep: int) -> Iterator[tuple[str, str]]:
    """The last trainings; the last manifests with their packs, and evaluations on these."""
    last = f"last {keep}"

    def newest(kind: str) -> list[str]:
        found = [one for one in things.values() if one.kind == kind]
        found.sort(key=lambda one: (one.modified_s, one.name), reverse=True)
        return [one.name for one in found[:keep]]

    yield from ((name, last) for name in newest(GENERATOR))
    used = dict.fromkeys(newest(FACE_SET), last)
    used |= {name: why for name, why in _current(store) if name.startswith("manifest/")}
    for name, why in used.items():
        yield name, why
        yield f"packed/{name.removeprefix('manifest/')}", why
    for one in things.values():
        if one.kind == EVALUATED:
            yield from ((one.name, used[need]) for need in one.needs & used.keys())
        elif one.kind == FACE_SET and store.exists(f"{one.name}/{TOMBSTONE}"):
            yield one.name, "takedown"


def _aliased(
    tracking: TrackingClient, learnt: Iterable[tuple["ModelVersion", list[str]]]
) -> Iterator[tuple[str, str]]:
    """The trainings of versions that bear an alias, and of the one that `promote` takes."""
    versions = [version for version, _ in learnt]  # the newest first
    folders = {str(version.version): version.tags.get(FOLDER, "") for version in versions}
    # champion before challenger before previous
    yield from (
        (folders.get(number, ""), name) for name, number in sorted(tracking.aliases().items())
    )
    promotable = [version for version in versions if ROLLED_BACK not in version.tags]
    yield from ((version.tags.get(FOLDER, ""), "newest version") for version in promotable[:1])


def _learnt(learnt: Iterable[tuple["ModelVersion", list[str]]]) -> Iterator[tuple[str, str]]:
    """Of all versions the run and what they learnt from: lineage and takedowns ask for it."""
    for version, digests in learnt:
        yield f"mlflow/{version.run_id}", "registered"
        yield from ((f"manifest/{digest}", "registered") for digest in digests)


def _generator_of(run: "Run") -> str:
    return f"generators/{run.data.tags.get(RUN_KEY, '')}"


def _runs_here(
    tracking: TrackingClient, runs: Mapping[str, "Run"], things: Mapping[str, Thing]
) -> Iterator[Thing]:
    """The runs of generators in this home. What a run shows real faces of, it needs."""
    client = tracking.client()
    for name, run in runs.items():
        owner = things.get(_generator_of(run))
        size_bytes = 0 if owner is None else _artifact_bytes(tracking, client, run.info.run_id)
        if owner is not None and (size_bytes or run.info.lifecycle_stage != "deleted"):
            digests = {*_digests(owner.needs), *_tagged(run)}
            needs = frozenset(f"manifest/{digest}" for digest in digests)
            yield Thing(RUN, name, needs=needs, size_bytes=size_bytes)


def _runs_elsewhere(
    tracking: TrackingClient, runs: Mapping[str, "Run"], things: Mapping[str, Thing]
) -> Iterator[tuple[str, str]]:
    """The manifests of other runs: of other homes, of comparisons, of generators that are gone."""
    client = tracking.client()
    for run in runs.values():
        is_deleted = run.info.lifecycle_stage == "deleted"
        if is_deleted and not _artifact_bytes(tracking, client, run.info.run_id):
            continue
        if _generator_of(run) not in things:
            yield from ((f"manifest/{digest}", "MLflow run") for digest in _tagged(run))


def _tagged(run: "Run") -> list[str]:
    tags = run.data.tags
    return [
        digest for digest in (tags.get(MANIFEST, ""), *tags.get(JUDGED_ON, "").split()) if digest
    ]


def _digests(needs: Iterable[str]) -> list[str]:
    return [name.removeprefix("manifest/") for name in needs if name.startswith("manifest/")]


def _artifact_bytes(
    tracking: TrackingClient, client: "MlflowClient", run_id: str, path: str | None = None
) -> int:
    with tracking.explained():
        found = client.list_artifacts(run_id, path)
    return sum(
        _artifact_bytes(tracking, client, run_id, one.path) if one.is_dir else one.file_size or 0
        for one in found
    )


def _discard(tracking: TrackingClient, run_id: str) -> str:
    """Removes a run's artifacts and marks it deleted; its numbers stay until `mlflow gc`.

    Returns why it could not, "" if it did.
    """
    from mlflow.exceptions import MlflowException
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    client = tracking.client()
    try:
        run = client.get_run(run_id)
        artifacts: Any = get_artifact_repository(run.info.artifact_uri)
        artifacts.delete_artifacts()
        if run.info.lifecycle_stage != "deleted":
            client.delete_run(run_id)
    except (MlflowException, NotImplementedError, OSError) as error:
        return f"MLflow at {tracking.place} refused: {without_secrets(str(error), tracking.uri)}"
    return ""


def _elsewhere(
    store: Store, unknown: Iterable[str], things: Collection[str]
) -> Iterator[tuple[str, str]]:
    """What is needed by trainings that lie in other folders, such as those of comparisons."""
    tops = [name for name in store.names("") if name not in _WITHOUT_TRAININGS]
    named = {"/".join(path.split("/")[:2]) for path in unknown if path.startswith("generators/")}
    for folder in [*(name for name in tops if "." not in name), *sorted(named - set(things))]:
        paths = store.files(folder)
        reason = "comparison" if folder == "comparisons" else folder
        yield from ((name, reason) for name in sorted(_named_by(store, paths)))
        for path in paths:
            if folder == "comparisons" and re.fullmatch(r"[^/]+/[^/]+/plan\.json", path):
                yield f"manifest/{store.read_json(path).get('manifest', '')}", reason
