"""Registered models of one MLflow store, each with versions, a champion and a lock."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mlflow.entities.model_registry import ModelVersion

from models.registry.client import TrackingClient
from models.registry.promotion import (
    CHAMPION,
    PREVIOUS,
    Outcome,
    champions,
    promote,
    rollback,
    wanted_version,
)
from models.registry.promotion_log import Promotion


def evaluation(distance: float, **changes: Any) -> dict[str, Any]:
    """An evaluation.json with what the gate reads."""
    return {
        "generator_sha256": "a" * 64,
        "config_digest": "c" * 64,
        "manifest_digest": "m" * 64,
        "protocol_digest": "p" * 64,
        "protocol": {"extractor": "inception", "fakes": 64, "repeats": 4},
        "metric": "fid",
        "fid": distance,
        "sigma": 0.1,
        "kernel_metric": "kid",
        "kid": distance,
        "kid_se": 0.5,
        "kid_at128": distance,
        "kid_at128_se": 0.5,
        "resolution_px": 64,
        "repeats": 4,
        "label_ap": 0.7,
        "label_ap_sigma": 0.001,
        "recall": 0.4,
        "recall_sigma": 0.001,
        "coverage": 0.6,
        "spread": 0.95,
        "spread_sigma": 0.001,
        "memory_ratio": 1.0,
        "copied_frac": 0.01,
        **changes,
    }


@dataclass(frozen=True)
class Desk:
    """One registered model of the module's MLflow store, and the folder of its lock."""

    tracking: TrackingClient
    lock: Path
    run_id: str
    evaluations: dict[str, dict[str, Any]] = field(default_factory=dict)
    measured: list[str] = field(default_factory=list)  # versions, in the order of the asking

    def add(
        self, distance: float, *, folder: str = "", source: str = "file:///model", **changes: Any
    ) -> str:
        """Registers a version with its evaluation; returns its number."""
        tags = {"omokage.metric": "fid", "omokage.fid": f"{distance:.4f}"}
        if folder:
            tags["omokage.folder"] = folder
        made = self.tracking.register(
            source, run_id=self.run_id, tags=tags, description="", model_page=""
        )
        self.evaluations[str(made.version)] = evaluation(distance, **changes)
        return str(made.version)

    def crown(self, version: str) -> None:
        """Writes what a promotion leaves behind, in one go."""
        before, number = self.aliases().get(CHAMPION, ""), len(self.moves()) + 1
        move = Promotion(number, before, version, "gate", "won", "2026-11-21T00:00:00", "done")
        self.tracking.tag_model(move.tag, move.to_json())
        self.tracking.set_alias(CHAMPION, version)
        if before:
            self.tracking.set_alias(PREVIOUS, before)

    def measure(self, version: ModelVersion) -> Mapping[str, Any]:
        self.measured.append(str(version.version))
        return self.evaluations[str(version.version)]

    def promote(self, version: str, **options: Any) -> Outcome:
        return promote(self.tracking, self.lock, version, measure=self.measure, **options)

    def rollback(self, reason: str = "green skin") -> Outcome:
        return rollback(self.tracking, self.lock, reason=reason)

    def aliases(self) -> dict[str, str]:
        return self.tracking.aliases()

    def tags(self, version: str) -> dict[str, str]:
        return dict(wanted_version(self.tracking, version).tags)

    def moves(self) -> list[tuple[str, str, str, str]]:
        journal = champions(self.tracking)
        return [(move.source, move.to, move.by, move.state) for move in journal[::-1]]

    def everything(self) -> Any:
        """All that the registry holds of the model."""
        versions = self.tracking.versions({})
        tags = {str(v.version): (dict(v.tags), v.description) for v in versions}
        return self.aliases(), self.tracking.model_tags(), tags

    def task(self, what: str, *, version: str = "", kill_after: int = 0) -> dict[str, Any]:
        return {
            "what": what,
            "version": version,
            "kill_after": kill_after,
            "uri": self.tracking.uri,
            "model": self.tracking.model,
            "lock": str(self.lock),
            "evaluations": self.evaluations,
        }


class Registry:
    """The module's MLflow store; each desk is a registered model of its own in it."""

    def __init__(self, home: Path) -> None:
        self.home, self._made = home, 0
        self.uri = f"sqlite:///{home / 'mlflow.db'}"
        artifacts = (home / "artifacts").as_uri()
        first = TrackingClient(uri=self.uri, artifacts=artifacts)
        self.run_id = first.run_for("generator", name="generator", tags={})

    def desk(self, *distances: float) -> Desk:
        """A model with a version for each distance, the first of which is champion."""
        self._made += 1
        tracking = TrackingClient(uri=self.uri, model=f"avatars-{self._made}")
        desk = Desk(tracking, self.home / "locks", self.run_id)
        for distance in distances:
            desk.add(distance)
        if distances:
            desk.crown("1")
        return desk
