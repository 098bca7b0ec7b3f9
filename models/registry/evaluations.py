"""Versions measured on equal terms: one manifest, one protocol; what is known is not done again."""

import dataclasses
import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from dataset.errors import RegistryError
from dataset.manifest import load_manifest
from dataset.store import Store
from models.registry.client import TrackingClient
from models.registry.load import FOLDER, training_folder, version_files
from models.registry.promotion import Measure

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
    protocol_digest: str

    @classmethod
    def of(cls, evaluation: Mapping[str, Any]) -> "Terms":
        """Returns the terms of an evaluation."""
        digest = evaluation["protocol_digest"]
        return cls(evaluation["manifest_digest"], evaluation["protocol"], digest)

    @classmethod
    def today(cls, store: Store, version: "ModelVersion") -> "Terms":
        """Returns the home's newest manifest with the protocol that judged the version last.

        Raises RegistryError if it never was judged under this home.
        """
        folder = training_folder(store, version)
        known = evaluations(store, folder) if folder else []
        if not known:
            raise RegistryError(
                f"version {version.version} has not been judged under {store.root}; materialise "
                "evaluation first, or name the home that it was made in with --home"
            )
        judged_by = version.tags.get(PROTOCOL)
        last = next((one for one in known if one["protocol_digest"] == judged_by), known[-1])
        manifest = load_manifest(store, None).digest
        return dataclasses.replace(cls.of(last), manifest=manifest)


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
        training's folder holds other weights by now.
        """
        folder = training_folder(self.store, version)
        for known in evaluations(self.store, folder) if folder else []:
            same = (known["manifest_digest"], known["protocol_digest"]) == (
                self.terms.manifest,
                self.terms.protocol_digest,
            )
            if same and _is_of(version, known):
                return known
        with version_files(self.store, self.tracking, version) as files:
            made = self.evaluate(
                home=self.store.root,
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
        return made


def on_todays_terms(
    evaluate: Evaluate, store: Store, tracking: TrackingClient, version: "ModelVersion"
) -> Measure:
    """Returns what measures versions as the one that is asked about; looks when first called."""

    @functools.cache
    def measuring() -> Measuring:
        return Measuring(evaluate, store, tracking, Terms.today(store, version))

    return lambda one: measuring()(one)


def evaluations(store: Store, folder: str) -> list[dict[str, Any]]:
    """Returns all evaluations of a training's folder that are whole."""
    paths = [path for path in store.files(f"{folder}/evaluation") if path.endswith(f"/{RESULT}")]
    return [store.read_json(path) for path in paths]


def _is_of(version: "ModelVersion", evaluation: Mapping[str, Any]) -> bool:
    registered = version.tags.get(WEIGHTS)  # versions of earlier times do not say
    return registered is None or registered == evaluation["generator_sha256"]
