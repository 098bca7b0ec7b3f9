"""Versions of the registered model: registration, and evaluation of two on equal terms."""

import functools
import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dataset.errors import RegistryError
from dataset.manifest import load_manifest, taken_rows
from dataset.store import Store
from dataset.takedown import evaluations as evaluations_of_home
from dataset.takedown import learnt_from, post_name
from models.registry.client import RUN_KEY, TrackingClient
from models.registry.gate import OLD_METRIC, is_decidable
from models.registry.model_uri import without_secrets
from models.registry.pages import (
    METRIC,
    NUMBERS,
    SIDE,
    Links,
    model_page,
    version_page,
    with_takedown,
)
from models.registry.program import FOLDER, log_generator, training_folder, version_files
from models.registry.promotion import TAKEDOWN, Measure, wanted_version

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion


RESULT = "evaluation.json"
PROTOCOL = "omokage.protocol"  # a version's tag: digest of the protocol that judged it
WEIGHTS = "omokage.weights"  # a version's tag: sha256 of the weights that it was registered with

Evaluate = Callable[..., Mapping[str, Any]]
"""Evaluates one generator: keywords home, generator, manifest (digest) and protocol (options)."""


@dataclass(frozen=True)
class Terms:
    """What two generators are compared on."""

    manifest: str
    protocol: Mapping[str, Any]  # the options of an evaluation's protocol
    protocol_digest: str  # "": not known before an evaluation with these options is made

    @classmethod
    def of(cls, evaluation: Mapping[str, Any]) -> "Terms":
        """Returns the terms of an evaluation."""
        digest = evaluation["protocol_digest"]
        return cls(evaluation["manifest_digest"], evaluation["protocol"], digest)

    @classmethod
    def today(
        cls, store: Store, version: "ModelVersion", options: Mapping[str, Any] | None = None
    ) -> "Terms":
        """Returns the home's newest manifest with the protocol that judged the version last.

        options: of the protocol, that are to be others. An evaluation of an older protocol gives
        its options alone: both versions are measured again. Raises RegistryError if the version
        never was judged under this home.
        """
        folder = training_folder(store, version)
        known = evaluations(store, folder) if folder else []
        if not known:
            raise RegistryError(
                f"version {version.version} has not been judged under {store.root}; materialise "
                "evaluation first, or name the home that it was made in with --home"
            )
        judged_by = version.tags.get(PROTOCOL)
        known = [one for one in known if is_decidable(one)] or known
        last = next((one for one in known if one["protocol_digest"] == judged_by), known[-1])
        protocol = {**last["protocol"], **(options or {})}
        is_same = is_decidable(last) and protocol == last["protocol"]
        digest = last["protocol_digest"] if is_same else ""
        return cls(load_manifest(store, None).digest, protocol, digest)


@dataclass(frozen=True)
class Measuring:
    """Gives the evaluation of any version on the same terms, evaluating it where need be."""

    evaluate: Evaluate
    store: Store
    tracking: TrackingClient
    terms: Terms

    def __call__(self, version: "ModelVersion") -> Mapping[str, Any]:
        """Returns the version's evaluation on these terms.

        A version of another home is measured as MLflow keeps it. Raises RegistryError if its
        training's folder holds other weights by now, or the protocol's digest is another by now.
        """
        folder = training_folder(self.store, version)
        for known in evaluations(self.store, folder) if folder else []:
            same = (known["manifest_digest"], known["protocol_digest"]) == (
                self.terms.manifest,
                self.terms.protocol_digest,
            )
            # One from before the spread was measured is made again: the gate looks at it.
            if same and _is_of(version, known) and "spread" in known:
                return known
        with version_files(self.store, self.tracking, version) as files:
            made = self.evaluate(
                store=self.store,
                generator=files.folder,
                manifest=self.terms.manifest,
                protocol=self.terms.protocol,
            )
        if files.is_training and not _is_of(version, made):
            raise RegistryError(
                f"version {version.version} cannot be measured again: {FOLDER} {files.folder} "
                f"holds weights {made['generator_sha256'][:12]}, and it was registered with "
                f"{version.tags[WEIGHTS][:12]}; its training went on. Promote the newer version."
            )
        if made["protocol_digest"] != (self.terms.protocol_digest or made["protocol_digest"]):
            raise RegistryError(
                f"version {version.version} cannot be measured by protocol "
                f"{self.terms.protocol_digest[:12]} again: with the same options it is "
                f"{made['protocol_digest'][:12]} by now. Materialise evaluation again."
            )
        return made


def on_todays_terms(
    evaluate: Evaluate,
    store: Store,
    tracking: TrackingClient,
    version: "ModelVersion",
    *,
    options: Mapping[str, Any] | None = None,
) -> Measure:
    """Returns what measures versions as that one, but for `options`; looks when first called."""

    @functools.cache
    def measuring() -> Measuring:
        return Measuring(evaluate, store, tracking, Terms.today(store, version, options))

    return lambda one: measuring()(one)


def evaluations(store: Store, folder: str) -> list[dict[str, Any]]:
    """Returns all evaluations of a training's folder that are whole."""
    paths = [path for path in store.files(f"{folder}/evaluation") if path.endswith(f"/{RESULT}")]
    return [store.read_json(path) for path in paths]


def _is_of(version: "ModelVersion", evaluation: Mapping[str, Any]) -> bool:
    registered = version.tags.get(WEIGHTS)  # versions of earlier times do not say
    return registered is None or registered == evaluation["generator_sha256"]


GENERATOR = "omokage.generator"
DAGSTER_RUN = "omokage.dagster_run"


@dataclass(frozen=True)
class VersionEntry:
    """What the registry says of a generator: what it is, what it was measured at, what made it."""

    current: Mapping[str, Any]
    measured: Mapping[str, Any]
    facts: Mapping[str, Any]  # of its train.json, with side_px and labels

    @classmethod
    def of(
        cls, store: Store, current: Mapping[str, Any], measured: Mapping[str, Any]
    ) -> "VersionEntry":
        """Reads the facts beside the weights."""
        folder = f"{current['folder']}/generator"
        spec = store.read_json(f"{folder}/spec.json")
        side = {"side_px": spec["resolution_px"], "labels": spec["labels"]}
        return cls(current, measured, store.read_json(f"{folder}/train.json") | side)

    @property
    def tags(self) -> dict[str, str]:
        """The version's tags; a number that was not measured has none."""
        metric = self.measured.get("metric", OLD_METRIC)
        numbers = {name: self.measured.get(name) for name in (metric, *NUMBERS)}
        texts = {
            GENERATOR: self.current["id"],
            WEIGHTS: self.measured["generator_sha256"],
            FOLDER: self.current["folder"],
            "omokage.family": self.facts["family"],
            "omokage.config": self.measured["config_digest"],
            "omokage.manifest": self.current["manifest"],
            "omokage.measured_on": self.measured["manifest_digest"],
            PROTOCOL: self.measured["protocol_digest"],
            "omokage.commit": self.facts.get("commit", ""),
            METRIC: metric,
            SIDE: str(self.measured.get("resolution_px", "")),
        }
        found = {f"omokage.{name}": f"{n:.4f}" for name, n in numbers.items() if n is not None}
        return {name: text for name, text in texts.items() if text} | found

    def taken(self, store: Store) -> str:
        """Returns what was taken down of what it learnt from, "" if nothing was."""
        folder = self.current["folder"]
        return taken_of(store, [self.current["manifest"], *learnt_from(store, folder)])

    def page(self, tracking: TrackingClient, dagster_run: str) -> str:
        """The version's description; dagster_run: the run that registered it, "" if unknown."""
        run_page = f"{tracking.dagster_url}/runs/{dagster_run}" if dagster_run else ""
        links = Links(
            dagster_run=run_page,
            asset=f"{tracking.dagster_url}/assets/champion",
            mlflow_run=tracking.run_url(self.current["mlflow_run"]),
        )
        return version_page(tracking.model, facts=self.facts, evaluation=self.measured, links=links)


def register_version(
    store: Store, tracking: TrackingClient, entry: VersionEntry, *, dagster_run: str
) -> tuple["ModelVersion", bool]:
    """Returns the version of this generator, and whether it was registered just now.

    A version that is there already gets the tags and the description of today. dagster_run: id of
    the run that registers it.
    """
    tracking.describe(model_page(tracking.model))
    known = [
        version
        for version in tracking.versions({GENERATOR: entry.current["id"]})
        # The same training, gone on for longer, is another generator.
        if version.tags.get(WEIGHTS, entry.tags[WEIGHTS]) == entry.tags[WEIGHTS]
    ]
    taken = entry.taken(store)  # a training may have ended after the takedown
    if known:
        tracking.tag_version(known[0], entry.tags)
        made_by = known[0].tags.get(DAGSTER_RUN, "")
        if not taken:
            tracking.describe_version(known[0], entry.page(tracking, made_by))
            return known[0], False
        mark_taken(tracking, known[0], taken, page=entry.page(tracking, made_by))
        return wanted_version(tracking, str(known[0].version)), False
    tracking.client()  # sets the address that MLflow's own functions use
    run_id = entry.current["mlflow_run"]
    uri = log_generator(store.url(f"{entry.current['folder']}/generator"), run_id=run_id)
    step, model_id = int(entry.current["images_seen"]), uri.removeprefix("models:/")
    tracking.log_evaluation(run_id, entry.measured, step=step, model_id=model_id)
    made = tracking.register(
        uri,
        run_id=run_id,
        tags=entry.tags | {DAGSTER_RUN: dagster_run} | ({TAKEDOWN: taken} if taken else {}),
        description=with_takedown(entry.page(tracking, dagster_run), taken),
        model_page=model_page(tracking.model),
    )
    return made, True


MANIFEST, ORIGIN = "omokage.manifest", "omokage.origin"  # tags of a run, and of a version
_REALS = re.compile(r"eval_(reals|neighbours)_grid[+%]")  # the pictures of a run that show reals
_SHOWN_POSTS = 10


def taken_of(store: Store, manifests: Iterable[str]) -> str:
    """Returns, as a version's tag says it, what was taken down of these manifests; "" if nothing.

    It says the same however often it is written: posts, no time.
    """
    rows = {row["face_id"]: row for digest in manifests for row in taken_rows(store, digest)}
    posts = sorted({post_name(row["board"], row["post_id"]) for row in rows.values()})
    shown = ", ".join(posts[:_SHOWN_POSTS])
    more = f" and {len(posts) - _SHOWN_POSTS:,} more" if len(posts) > _SHOWN_POSTS else ""
    return f"{shown}{more}"


def mark_taken(
    tracking: TrackingClient, version: "ModelVersion", taken: str, *, page: str | None = None
) -> None:
    """Marks a version, by tag and on its page, as made from pictures that were taken down.

    page: its description (default: the one that it has).
    """
    tracking.tag_version(version, {TAKEDOWN: taken})
    described = version.description or "" if page is None else page
    tracking.describe_version(version, with_takedown(described, taken))


def learnt_manifests(
    store: Store, tracking: TrackingClient
) -> list[tuple["ModelVersion", list[str]]]:
    """Returns all versions, newest first, with the digests of the manifests that each learnt from.

    A version that went on from another generator learnt from that one's manifests too; what the
    home does not know of that, the tags of MLflow's runs say.
    """
    tags = {run.data.tags.get(RUN_KEY, ""): run.data.tags for run in tracking.runs()}
    found = []
    for version in tracking.versions({}):
        digests = [version.tags.get(MANIFEST, "")]
        digests += learnt_from(store, version.tags.get(FOLDER, ""))
        key, seen = version.tags.get(GENERATOR, ""), set[str]()
        while key in tags and key not in seen:
            seen.add(key)
            digests.append(tags[key].get(MANIFEST, ""))
            key = tags[key].get(ORIGIN, "")
        found.append((version, list(dict.fromkeys(filter(None, digests)))))
    return found


def grids_of_reals(
    store: Store, tracking: TrackingClient, manifests: Collection[str]
) -> list[tuple[str, str]]:
    """Returns run and path of MLflow's pictures of real faces that may be of these manifests.

    A run's pictures are of its own manifest or of one that its generator was judged on; where the
    generator is not in this home, they may be of any.
    """
    if not manifests:
        return []
    judged: dict[str, set[str]] = {}
    for path, digest in evaluations_of_home(store).items():
        judged.setdefault(path.rpartition("/evaluation/")[0], set()).add(digest)
    found = []
    for run in tracking.runs():
        folder = f"generators/{run.data.tags.get(RUN_KEY, '')}"
        on = {run.data.tags.get(MANIFEST, "")} | judged.get(folder, set())
        if on.isdisjoint(manifests) and store.exists(folder):
            continue
        paths = tracking.pictures(run.info.run_id)
        found += [(run.info.run_id, path) for path in paths if _REALS.match(path.split("/")[-1])]
    return found


def remove_artifact(tracking: TrackingClient, run_id: str, path: str) -> str:
    """Removes a file among a run's artifacts; returns why it could not, "" if it is gone."""
    from mlflow.exceptions import MlflowException
    from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

    client = tracking.client()
    try:
        artifacts: Any = get_artifact_repository(client.get_run(run_id).info.artifact_uri)
        artifacts.delete_artifacts(path)
        left = {file.path for file in client.list_artifacts(run_id, path.rpartition("/")[0])}
    except (MlflowException, NotImplementedError, OSError) as error:
        said = without_secrets(str(error), tracking.uri)
        return f"MLflow's artifact store at {tracking.place} refused: {said}"
    return f"MLflow's artifact store at {tracking.place} still lists it" if path in left else ""
