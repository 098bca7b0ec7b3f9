"""The training loop: one function from data to a saved generator, read from top to bottom."""

import contextlib
import copy
import dataclasses
import io
import resource
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.torch
import torch
from torch import Tensor

from dataset.errors import ConfigError, TrainingError
from dataset.store import Store
from models import checkpoints, parallel
from models.batches import Batches
from models.checkpoints import TrainState
from models.compiled import check_compiled
from models.config import TrainConfig
from models.continuing import differences, last_checkpoint, unfit_to_continue
from models.devices import described, held_device
from models.entry import Report, Stopped
from models.families import Family, family_of
from models.generators import SPEC, TRAIN, TYPICAL, WEIGHTS
from models.labels import names_of, typical_labels
from models.losses import positive_weights
from models.provenance import code_version, commit
from models.sampling import grid, sample_sheet
from models.scores import SnapshotScore, snapshot_score
from models.step import Parts, train_step
from models.ticks import TerminalBar, TickLog
from models.tracking import Tracker

TYPICAL_ROWS = 256  # real label rows that a generator keeps, to draw from without wishes
MEET_STEPS = 16  # of GPUs that ask each other for signals; torchrun kills what takes 30 s to end
CHECKED = 8  # pictures that compiled and eager gradients are compared on


@dataclasses.dataclass(frozen=True)
class TrainingSet:
    """The reals: uint8 images [N,3,R,R], labels [N,L] of 0 and 1, names of the labels, digest."""

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.generic]
    label_names: tuple[str, ...]
    manifest_digest: str

    def of_family(self, family: Family) -> "TrainingSet":
        """Returns the set with only those labels that the family is conditioned on."""
        names = family.labels(self.label_names)
        columns = [self.label_names.index(name) for name in names]
        return dataclasses.replace(
            self, labels=np.asarray(self.labels)[:, columns], label_names=names
        )


def train(
    store: Store,
    out: str,
    config: TrainConfig,
    *,
    data: TrainingSet,
    report: Report,
    tracker: Tracker,
    stop_signal: Callable[[], int],
    continue_from: str = "",
) -> dict[str, Any]:
    """Trains below the folder `out` of the store, from its last checkpoint on; returns a summary.

    Leaves `generator/` (averaged weights, spec.json, train.json), `checkpoints/`, `samples/` and
    progress.jsonl. A finished training of the same settings and data returns at once, with
    `"already_trained": true`. stop_signal() gives the number of a signal that came, or 0.

    continue_from is the folder of another training of the same settings and labels, perhaps on a
    smaller manifest: a new `out` starts from its last checkpoint and trains config.total_kimg more.
    Under `torchrun` every process calls this alike, and the first one writes.

    Raises TrainingError if a loss is not finite, if `out` holds a training of other settings or
    data, or if its checkpoint is damaged; Stopped, after saving, when a signal came.
    """
    started = time.monotonic()
    data = data.of_family(family_of(config.family))
    run = _Run(store, out, config, data)
    done = run.already_trained()
    if done is not None:
        print(f"already trained: {store.url(out)}/generator", file=sys.stderr)
        return {**done, "already_trained": True, "seconds": 0.0}
    with held_device(config.device) as device, _joined(config, device):
        run.train(
            device,
            report=report,
            tracker=tracker,
            stop_signal=stop_signal,
            continue_from=continue_from,
        )
    seconds = round(time.monotonic() - started, 2)
    return run.summary() | {"already_trained": False, "seconds": seconds}


@dataclasses.dataclass
class _Run:
    """A training's folder, settings and data, and what its checkpoints say of where it began."""

    store: Store
    out: str
    config: TrainConfig
    data: TrainingSet
    origin: dict[str, Any] | None = None  # the training that it goes on from, and how far that was

    def train(
        self,
        device: torch.device,
        *,
        report: Report,
        tracker: Tracker,
        stop_signal: Callable[[], int],
        continue_from: str,
    ) -> None:
        """Trains to the end and leaves the generator; see `train`."""
        # Build, and go on from the last checkpoint
        config, data, leads = self.config, self.data, parallel.rank() == 0
        _set_up(config, device)
        state = _new_state(config, data, device)
        self._resume(state, continue_from, leads=leads)
        parts = Parts(state.G, state.D, bf16=_is_bf16(config, device), compiled=config.compile)
        batches = Batches(
            data.images, data.labels, batch=config.batch, seed=config.seed, device=device
        )
        if config.compile:
            images, labels = batches.at(state.step)
            errors = check_compiled(
                state.G, state.D, config, images=images[:CHECKED], labels=labels[:CHECKED]
            )
            _tell_errors(errors, leads=leads)
        weights = positive_weights(torch.from_numpy(np.asarray(data.labels, dtype=np.float32)))
        weights = weights.to(device)
        score = self._score(device) if leads else None
        total = config.total_steps + (self.origin["step"] if self.origin else 0)
        each = config.images_a_step
        tick_steps = config.steps_of(config.tick_kimg)
        snapshot_steps = config.steps_of(config.snapshot_kimg)
        log = TickLog(
            self.store,
            self.out,
            images_seen=state.step * each,
            report=report,
            tracker=tracker,
            speaks=leads,
        )
        if leads:
            print(f"training {config.family} on {described(device)}", file=sys.stderr)
            tracker.params(self._identity() | dataclasses.asdict(config))

        # Train
        tick = _Tick(state, config, device)
        metrics: dict[str, float] = {}
        with (
            contextlib.closing(batches),
            TerminalBar(total * each, state.step * each, speaks=leads) as bar,
        ):
            ended = state.step >= total
            while not ended:
                began = time.monotonic()
                tick.add(train_step(state, config, batches, parts=parts, positive_weight=weights))
                state.seconds += time.monotonic() - began
                bar.advance(each)
                tick_due = state.step % tick_steps == 0 or state.step == total
                meets = tick_due or device.type == "cpu" or state.step % MEET_STEPS == 0
                stopped_by, timed_out = _asked_to_end(state, config, stop_signal, agreed=meets)
                ended = state.step == total or timed_out
                snapshot_due = ended or state.step % snapshot_steps == 0
                if tick_due or stopped_by or snapshot_due:
                    metrics = tick.metrics()  # raises if one is not finite: nothing bad is saved
                if leads and snapshot_due and score is not None:
                    metrics[score.name] = score.of(state.ema)
                if leads and (stopped_by or snapshot_due):
                    self._save_checkpoint(state, metrics.get(score.name) if score else None)
                if leads and snapshot_due:
                    tracker.image("samples", self._save_samples(state), state.step * each)
                if tick_due or stopped_by or snapshot_due:
                    log.tick(metrics, of_images=total * each)
                    bar.tell(metrics)
                    tick = _Tick(state, config, device)
                if stopped_by and not ended:
                    parallel.wait_for_all()  # torchrun ends all as soon as one of them has ended
                    raise Stopped(
                        stopped_by,
                        f"stopped at {state.step * each:,} pictures and saved; "
                        "the same command goes on from there",
                    )

        # Leave the generator
        if leads:
            facts = self._facts(state, device) | {"metrics": metrics}
            self._save_generator(state, facts)
        parallel.wait_for_all()

    def _score(self, device: torch.device) -> SnapshotScore | None:
        return snapshot_score(
            self.data.images,
            self.data.labels,
            count=self.config.score_pictures,
            seed=self.config.seed,
            device=str(device),
        )

    def _resume(self, state: TrainState, continue_from: str, *, leads: bool) -> None:
        places = checkpoints.finished(self.store, f"{self.out}/checkpoints")
        if places:
            facts = checkpoints.facts_of(self.store, places[-1])
            self._check_same(facts)
            self.origin = facts.get("origin")
            checkpoints.load(self.store, places[-1], state)
        elif continue_from:
            facts = self._begin_from(continue_from, state)
        else:
            return
        if leads:
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
        checkpoints.load(self.store, place, state)
        state.seconds = 0.0  # max_minutes is for this training, not for the one before
        self.origin = {
            "folder": folder,
            "step": facts["step"],
            "images_seen": facts["images_seen"],
            "manifest_digest": facts["manifest_digest"],
        }
        return facts

    def _check_same(self, facts: dict[str, Any]) -> None:
        faults, now = differences(self.config, facts["config"]), self.data.manifest_digest
        if facts["manifest_digest"] != now:
            faults.append(f"the manifest was {facts['manifest_digest'][:12]}…, now {now[:12]}…")
        if faults:
            raise TrainingError(
                f"{self.store.url(self.out)} holds another training: {'; '.join(faults)}. "
                "Choose another --out."
            )

    def already_trained(self) -> dict[str, Any] | None:
        """Returns the summary of a finished training of these settings and data, if it is one."""
        path = f"{self.out}/generator/{TRAIN}"
        if not self.store.exists(path):
            return None
        facts = self.store.read_json(path)
        self._check_same(facts)
        wanted = self.config.total_steps * self.config.images_a_step
        wanted += facts["origin"]["images_seen"] if facts.get("origin") else 0
        limit_s = self.config.max_minutes * 60
        if facts["images_seen"] < wanted and not 0 < limit_s <= facts["train_seconds"]:
            return None
        return self.summary()

    def summary(self) -> dict[str, Any]:
        """Returns what a caller wants to know of the finished training."""
        facts = self.store.read_json(f"{self.out}/generator/{TRAIN}")
        names = ["family", "images_seen", "config", "config_digest", "manifest_digest", "device"]
        names += ["metrics", "samples"]
        return {"generator": f"{self.out}/generator"} | {name: facts[name] for name in names}

    def _identity(self) -> dict[str, Any]:
        return {
            "config_digest": self.config.digest,
            "manifest_digest": self.data.manifest_digest,
            "pictures": len(self.data.images),
            "code_version": code_version(),
            "commit": commit(),
            "torch": torch.__version__,
        }

    def _facts(self, state: TrainState, device: torch.device) -> dict[str, Any]:
        images = state.step * self.config.images_a_step
        return {
            **self._identity(),
            "family": self.config.family,
            "config": dataclasses.asdict(self.config),
            "seed": self.config.seed,
            "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
            "processes": parallel.world(),
            "images_seen": images,
            "train_seconds": round(state.seconds, 2),
            "origin": self.origin,
            "samples": self._samples_path(images),
        }

    def _save_checkpoint(self, state: TrainState, score: float | None) -> None:
        folder = f"{self.out}/checkpoints"
        facts = {
            "config": dataclasses.asdict(self.config),
            "manifest_digest": self.data.manifest_digest,
            "spec": state.G.spec.to_json(),
            "typical_labels": self._typical_labels(),
            "origin": self.origin,
            "score": score,
        }
        images = state.step * self.config.images_a_step
        checkpoints.save(self.store, folder, state, images=images, facts=facts)
        checkpoints.prune(self.store, folder, keep=self.config.keep_checkpoints)

    def _save_samples(self, state: TrainState) -> bytes:
        pictures = sample_sheet(state.ema, np.asarray(self.data.labels), seed=self.config.seed)
        sheet = io.BytesIO()
        grid(pictures, 8).save(sheet, "PNG")
        path = self._samples_path(state.step * self.config.images_a_step)
        self.store.write_bytes(path, sheet.getvalue(), durable=False)
        return sheet.getvalue()

    def _samples_path(self, images: int) -> str:
        return f"{self.out}/samples/{images:010d}.png"

    def _save_generator(self, state: TrainState, facts: dict[str, Any]) -> None:
        folder = f"{self.out}/generator"
        weights = state.ema.state_dict()
        tensors = {name: t.detach().cpu().contiguous() for name, t in weights.items()}
        self.store.write_bytes(f"{folder}/{WEIGHTS}", safetensors.torch.save(tensors))
        self.store.write_json(f"{folder}/{SPEC}", state.ema.spec.to_json())
        self.store.write_json(f"{folder}/{TYPICAL}", self._typical_labels())
        self.store.write_json(f"{folder}/{TRAIN}", facts)

    def _typical_labels(self) -> list[list[str]]:
        rows = typical_labels(np.asarray(self.data.labels), TYPICAL_ROWS, self.config.seed)
        return [names_of(row, self.data.label_names) for row in rows]


class _Tick:
    """Losses since the last tick, kept on the device so that no step waits for them."""

    def __init__(self, state: TrainState, config: TrainConfig, device: torch.device) -> None:
        self._first, self._each, self._device = state.step, config.images_a_step, device
        self._rows: list[Tensor] = []
        self._names: list[str] = []
        self._started = time.monotonic()

    def add(self, losses: dict[str, Tensor]) -> None:
        self._names = list(losses)
        self._rows.append(torch.stack(list(losses.values())))

    def metrics(self) -> dict[str, float]:
        """Means over the tick; raises TrainingError naming the first step that was not finite."""
        table = parallel.mean_over_ranks(torch.stack(self._rows)).double().cpu()
        bad = (~torch.isfinite(table)).nonzero()
        if len(bad):
            row, column = bad[0].tolist()
            raise TrainingError(
                f"step {self._first + row + 1}: the loss {self._names[column]} is "
                f"{table[row, column].item()}; the last checkpoint is from before it. Try smaller "
                "lr_g and lr_d, or a larger r1_gamma."
            )
        images = (self._first + len(table)) * self._each
        seconds = max(time.monotonic() - self._started, 1e-9)
        metrics = dict(zip(self._names, table.mean(dim=0).tolist(), strict=True))
        return metrics | {
            "images_seen": images,
            "kimg": images / 1000,
            "pictures_per_s": len(table) * self._each / seconds,
            "memory_mb": round(_peak_bytes(self._device) / 1e6, 1),
        }


@contextlib.contextmanager
def _joined(config: TrainConfig, device: torch.device) -> Iterator[None]:
    """Joins the other processes of `torchrun`, if there are any and the caller has not done so.

    Raises ConfigError if the batch cannot be shared out.
    """
    joined = parallel.join(device)
    try:
        # Minibatch statistics are over groups of four, which no two processes share.
        unit = parallel.world() * (4 if config.family == "stylegan2" else 1)
        if parallel.world() > 1 and config.batch % unit:
            raise ConfigError(
                f"batch is {config.batch}; a multiple of {unit} is wanted for "
                f"{parallel.world()} processes"
            )
        yield
    finally:
        if joined:
            parallel.leave()


def _asked_to_end(
    state: TrainState, config: TrainConfig, stop_signal: Callable[[], int], *, agreed: bool
) -> tuple[int, bool]:
    """Returns the signal that came, or 0, and whether the time is up; the same on all ranks.

    Several ranks ask each other only where `agreed`: each time costs a meeting.
    """
    if parallel.world() > 1 and not agreed:
        return 0, False
    timed_out = 0 < config.max_minutes * 60 <= state.seconds
    return parallel.any_rank(stop_signal()), bool(parallel.any_rank(int(timed_out)))


def _set_up(config: TrainConfig, device: torch.device) -> None:
    if config.threads:
        torch.set_num_threads(config.threads)
    torch.backends.cudnn.benchmark = False  # it may choose other kernels on another day
    torch.backends.cudnn.deterministic = True
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
        torch.cuda.reset_peak_memory_stats(device)
    torch.manual_seed(config.seed)


def _is_bf16(config: TrainConfig, device: torch.device) -> bool:
    if config.precision == "auto":
        return device.type == "cuda" and torch.cuda.is_bf16_supported()
    return config.precision == "bf16"


def _new_state(config: TrainConfig, data: TrainingSet, device: torch.device) -> TrainState:
    family = family_of(config.family)
    G = family.generator(family.spec(data.label_names, config.g_size()))
    D = family.discriminator(family.spec(data.label_names, config.d_size()))
    # NHWC is what the tensor cores of a GPU want; on a CPU it is slower.
    if device.type == "cuda":
        for network in (G, D):
            network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def adam(network: torch.nn.Module, lr: float) -> torch.optim.Adam:
        betas = (config.beta1, config.beta2)
        return torch.optim.Adam(
            network.parameters(), lr=lr, betas=betas, eps=config.adam_eps, fused=True
        )

    return TrainState(
        G=G,
        D=D,
        ema=copy.deepcopy(G).eval().requires_grad_(False),
        opt_g=adam(G, config.lr_g),
        opt_d=adam(D, config.lr_d),
        rng=torch.Generator().manual_seed(config.seed),
        device_rng=torch.Generator(device).manual_seed(config.seed),
        aug_p=torch.tensor(config.aug_p, device=device),
        real_sign=torch.zeros((), device=device),
        path_mean=torch.zeros((), device=device),
    )


def _tell_errors(errors: dict[str, float], *, leads: bool) -> None:
    if leads:
        told = ", ".join(f"{name} {error:.1e}" for name, error in errors.items())
        print(f"compiled gradients are those of eager steps, up to {told}", file=sys.stderr)


def _peak_bytes(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes if sys.platform == "darwin" else kilobytes * 1024
