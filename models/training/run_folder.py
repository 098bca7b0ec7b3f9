"""A training's folder: resumed from its last checkpoint, and kept up to date as training goes."""

import dataclasses
import functools
import hashlib
import io
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from PIL import Image

from dataset.errors import TrainingError, listed
from dataset.store import Store
from models.config import TrainConfig
from models.io.generators import GENERATOR, SPEC, TRAIN, TYPICAL, WEIGHTS, load_generator
from models.io.safe_io import COUNT, NAME, OBJECT, ORIGIN, SECONDS, Kind, fact_faults, read_own_json
from models.labels import names_of, typical_labels
from models.sampling.draw import grid, sample_sheet
from models.training import checkpoint, distributed
from models.training.checkpoint import TrainState, differences, last_checkpoint, unfit_to_continue
from models.training.data import TrainingSet

TYPICAL_ROWS = 256  # real label rows that a generator keeps, to draw from without wishes
GROWTH = "growth.gif"
FRAMES = 16  # of it, at most
_FRAME_MS, _LAST_MS = 300, 2500  # that a frame of it is shown


@dataclasses.dataclass
class TrainingFolder:
    """A training's folder: what stands in it, and what is written into it.

    Attributes:
        store, out: the folder `out` of the store.
        config, data: what is trained.
        origin: the training that it goes on from, and how far that was; None for none.

    """

    store: Store
    out: str
    config: TrainConfig
    data: TrainingSet
    origin: dict[str, Any] | None = None

    def resume(self, state: TrainState, continue_from: str, *, is_main_process: bool) -> None:
        """Puts the last checkpoint into `state`, else that of the training `continue_from`, if any.

        is_main_process: whether this process tells of it. Raises TrainingError for other settings
        or data.
        """
        places = checkpoint.finished(self.store, f"{self.out}/checkpoints")
        if places:
            facts = checkpoint.facts_of(self.store, places[-1])
            self._check_same(facts)
            self.origin = facts.get("origin")
            checkpoint.load(self.store, places[-1], state)
        elif continue_from:
            facts = self._begin_from(continue_from, state)
        else:
            return
        if is_main_process:
            print(f"going on from {facts['images_seen']:,} pictures", file=sys.stderr)

    def _begin_from(self, folder: str, state: TrainState) -> dict[str, Any]:
        """Takes the last state of another training over; returns that checkpoint's facts."""
        place, facts = last_checkpoint(self.store, folder)
        faults = unfit_to_continue(facts, self.config, self.data.label_names)
        if faults:
            raise TrainingError(
                f"{self.store.url(folder)} cannot be gone on from: {'; '.join(faults)}. "
                "Train from the beginning instead."
            )
        checkpoint.load(self.store, place, state)
        state.seconds = 0.0  # max_minutes is for this training, not for the one before
        self.origin = {
            "folder": folder,
            "step": facts["step"],
            "images_seen": facts["images_seen"],
            "manifest_digest": facts["manifest_digest"],
            "labels": list(self.data.label_names),
        }
        return facts

    def _check_same(self, facts: dict[str, Any]) -> None:
        faults, now = differences(self.config, facts["config"]), self.data.manifest_digest
        if facts["manifest_digest"] != now:
            faults.append(f"the manifest was {facts['manifest_digest'][:12]}…, now {now[:12]}…")
        if faults:
            raise TrainingError(
                f"{self.store.url(self.out)} holds another training: {'; '.join(faults)}. "
                "Choose another --out, or give --set the values that it has."
            )

    def already_trained(self) -> dict[str, Any] | None:
        """Returns the summary of a finished training of these settings and data, if it is one."""
        if not self.store.exists(f"{self.out}/{GENERATOR}/{TRAIN}"):
            return None
        facts = self._trained_facts()
        self._check_same(facts)
        wanted = self.config.total_steps * self.config.images_a_step
        wanted += facts["origin"]["images_seen"] if facts.get("origin") else 0
        limit_s = self.config.max_minutes * 60
        kept = facts["config"].get("keep_generator", self.config.keep_generator)
        if kept != self.config.keep_generator:
            return None
        if facts["images_seen"] < wanted and not 0 < limit_s <= facts["train_seconds"]:
            return None
        return self.summary()

    def summary(self) -> dict[str, Any]:
        """Returns what a caller wants to know of the finished training."""
        facts = self._trained_facts()
        names = ["family", "images_seen", "config", "config_digest", "manifest_digest", "device"]
        return {
            "generator": f"{self.out}/{GENERATOR}",
            **{name: facts[name] for name in [*names, "metrics"]},
            # Its name alone: the folder may have been moved since.
            "samples": f"{self.out}/samples/{facts['samples'].rpartition('/')[2]}",
        }

    def _trained_facts(self) -> dict[str, Any]:
        """Reads train.json; raises TrainingError naming all that it says wrongly."""
        path = f"{self.out}/{GENERATOR}/{TRAIN}"
        found = read_own_json(self.store, path, within=self.out)
        faults = ["a JSON object is wanted"]
        if isinstance(found, dict):
            faults = fact_faults(found, _TRAINED)
        if faults:
            raise TrainingError(
                f"{self.store.url(path)} is no finished training's:\n{listed(faults)}\n"
                "Remove it to go on from the last checkpoint."
            )
        return dict(found)

    def identity(self) -> dict[str, Any]:
        """Returns what the training is made from: digests, commit, versions."""
        return {
            "config_digest": self.config.digest,
            "manifest_digest": self.data.manifest_digest,
            "pictures": len(self.data.images),
            "code_version": code_version(),
            "commit": commit(),
            "torch": torch.__version__,
        }

    def facts(self, state: TrainState, device: torch.device) -> dict[str, Any]:
        """Returns what train.json says of a training that has come to `state`."""
        images = state.step * self.config.images_a_step
        return {
            **self.identity(),
            "family": self.config.family,
            "config": dataclasses.asdict(self.config),
            "seed": self.config.seed,
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
            "processes": distributed.world(),
            "images_seen": images,
            "train_seconds": round(state.seconds, 2),
            "origin": self.origin,
        }

    def save_checkpoint(self, state: TrainState, score: float | None, score_name: str) -> None:
        """Writes a checkpoint and takes those away that are neither among the last nor the best.

        score_name: what the score is of, "" where snapshots are not scored.
        """
        folder = f"{self.out}/checkpoints"
        facts = {
            "config": dataclasses.asdict(self.config),
            "manifest_digest": self.data.manifest_digest,
            "spec": state.G.spec.to_json(),
            "typical_labels": self._typical_labels(),
            "origin": self.origin,
            "score": score,
            "score_name": score_name,
        }
        images = state.step * self.config.images_a_step
        checkpoint.save(self.store, folder, state, images=images, facts=facts)
        keep = self.config.keep_checkpoints
        checkpoint.prune(self.store, folder, keep=keep, score_name=score_name)

    def save_samples(self, state: TrainState) -> bytes:
        """Draws the sheet of fixed seeds, writes it and returns its PNG."""
        pictures = sample_sheet(state.ema, np.asarray(self.data.labels), seed=self.config.seed)
        sheet = io.BytesIO()
        grid(pictures, 8).save(sheet, "PNG")
        path = self._samples_path(state.step * self.config.images_a_step)
        self.store.write_bytes(path, sheet.getvalue(), durable=False)
        return sheet.getvalue()

    def save_growth(self, state: TrainState) -> bytes:
        """Writes the GIF of all sheets up to `state`, drawing the last one if a kill prevented it.

        Returns the GIF.
        """
        images = state.step * self.config.images_a_step
        if not self.store.exists(self._samples_path(images)):
            self.save_samples(state)
        growth = growth_gif(self.store, self.out, up_to=images)
        self.store.write_bytes(f"{self.out}/{GROWTH}", growth, durable=False)
        return growth

    def _samples_path(self, images: int) -> str:
        return f"{self.out}/samples/{images:010d}.png"

    def save_generator(self, state: TrainState, facts: dict[str, Any], score_name: str) -> None:
        """Writes `generator/`: averaged weights, their spec, typical labels, and the facts.

        The weights are those of the snapshot of the best score of that name, unless settings want
        the final one or there is none; then those of `state`, which is the last snapshot's.
        """
        checkpoints, folder = f"{self.out}/checkpoints", f"{self.out}/{GENERATOR}"
        last = checkpoint.finished(self.store, checkpoints)[-1]
        place, generator = last, state.ema
        if self.config.keep_generator == "best" and score_name:
            place = checkpoint.best(self.store, checkpoints, score_name) or last
        if place != last:
            generator = load_generator(self.store.url(place))
        about = checkpoint.facts_of(self.store, place)
        snapshot = {name: about.get(name) for name in ("images_seen", "score", "score_name")}
        samples = self._samples_path(about["images_seen"])
        tensors = {n: t.detach().cpu().contiguous() for n, t in generator.state_dict().items()}
        # Without its train.json a generator is not taken for finished: a kill between two files
        # leaves no weights beside the facts of others.
        self.store.remove(f"{folder}/{TRAIN}")
        self.store.write_bytes(f"{folder}/{WEIGHTS}", safetensors.torch.save(tensors))
        self.store.write_json(f"{folder}/{SPEC}", state.ema.spec.to_json())
        self.store.write_json(f"{folder}/{TYPICAL}", self._typical_labels())
        self.store.write_json(
            f"{folder}/{TRAIN}", {**facts, "snapshot": snapshot, "samples": samples}
        )

    def _typical_labels(self) -> list[list[str]]:
        rows = typical_labels(np.asarray(self.data.labels), TYPICAL_ROWS, self.config.seed)
        return [names_of(row, self.data.label_names) for row in rows]


def growth_gif(
    store: Store,
    out: str,
    *,
    up_to: int,
    side_px: int = 256,
    frames: int = FRAMES,
    colours: int = 256,
) -> bytes:
    """Returns a GIF of how the 4 x 4 pictures at the left of a training's sheets have grown.

    up_to: pictures seen by the last sheet to show. Of more sheets than `frames` it shows so many,
    evenly spaced, the first and the last among them; the last one is held. At worst, 16
    frames of noise 256 px wide, it has 1.45 MB.
    """
    found = filter(_SHEET_NAME.fullmatch, store.names(f"{out}/samples"))
    names = sorted((name for name in found if _images(name) <= up_to), key=_images)
    chosen = np.linspace(0, len(names) - 1, min(len(names), frames)).round().astype(int)
    squares = []
    for place in chosen:
        with store.open(f"{out}/samples/{names[place]}") as file:
            sheet = Image.open(file).convert("RGB")
        left = sheet.crop((0, 0, sheet.height, sheet.height))
        squares.append(np.asarray(left.resize((side_px, side_px), Image.Resampling.LANCZOS)))
    beside = Image.fromarray(np.concatenate(squares, axis=1))
    palette = beside.quantize(colours, method=Image.Quantize.MEDIANCUT)  # k-means: 15 s on noise
    # Without dithering: its grain would flicker.
    first, *others = (
        Image.fromarray(one).quantize(palette=palette, dither=Image.Dither.NONE) for one in squares
    )
    growth = io.BytesIO()
    durations = [*[_FRAME_MS] * len(others), _LAST_MS]
    first.save(growth, "GIF", save_all=True, append_images=others, duration=durations, loop=0)
    return growth.getvalue()


_SHEET_NAME = re.compile(r"[0-9]{10,16}\.png")


def _images(sheet_name: str) -> int:
    return int(sheet_name.removesuffix(".png"))


_SHEET = re.compile(r"[^/\\]+(?:/[^/\\]+)*/samples/[0-9]{10,16}\.png")
_TRAINED: dict[str, Kind] = {
    "family": NAME,
    "config": OBJECT,
    "config_digest": NAME,
    "manifest_digest": NAME,
    "device": NAME,
    "images_seen": COUNT,
    "train_seconds": SECONDS,
    "origin": ORIGIN,
    "metrics": OBJECT,
    # It may name another folder, which the training lay in before, but never one outside a home.
    "samples": (
        lambda found: (
            isinstance(found, str)
            and bool(_SHEET.fullmatch(found))
            and ".." not in found.split("/")
        ),
        "the path of a sheet in samples/",
    ),
}


@functools.cache
def code_version() -> str:
    """Returns 16 hex digits of the sha256 over the sources of models/: which code trained it."""
    root = Path(__file__).parents[1]
    sha256 = hashlib.sha256()
    for path in sorted(root.rglob("*.py")):
        sha256.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes())
    return sha256.hexdigest()[:16]


@functools.cache
def commit() -> str:
    """Returns the commit of the checkout that holds this code, "" outside of one.

    A `-dirty` suffix says that files differ from the commit.
    """
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return ""
    try:
        described = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--dirty"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):  # no git here, or a checkout of someone else's
        return ""
    return described.stdout.strip()
