"""The training loop: one function from data to a saved generator, read from top to bottom."""

import copy
import dataclasses
import hashlib
import io
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import safetensors.torch
import torch
from torch import Tensor, nn

from dataset.errors import TrainingError
from dataset.store import Store
from models import checkpoints
from models.augment import flipped, translated
from models.batches import Batches
from models.checkpoints import TrainState
from models.config import TrainConfig
from models.entry import Report, Stopped
from models.families import family_of
from models.labels import names_of, typical_labels
from models.losses import ADVERSARIAL, label_loss, positive_weights, r1_penalty
from models.sampling import SPEC, TYPICAL, WEIGHTS, grid, sample_sheet
from models.ticks import TickLog, terminal_bar
from models.tracking import Tracker

TYPICAL_ROWS = 256  # real label rows that a generator keeps, to draw from without wishes
TRAIN = "train.json"  # written last: where it stands, the training is finished


@dataclasses.dataclass(frozen=True)
class TrainingSet:
    """The reals: uint8 images [N,3,R,R], labels [N,L] of 0 and 1, names of the labels, digest."""

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.generic]
    label_names: tuple[str, ...]
    manifest_digest: str


def train(
    store: Store,
    out: str,
    config: TrainConfig,
    *,
    data: TrainingSet,
    report: Report,
    tracker: Tracker,
    stop_signal: Callable[[], int],
) -> dict[str, Any]:
    """Trains below the folder `out` of the store, from its last checkpoint on; returns a summary.

    Leaves `generator/` (averaged weights, spec.json, train.json), `checkpoints/`, `samples/` and
    progress.jsonl. A finished training of the same settings and data returns at once, with
    `"already_trained": true`. stop_signal() gives the number of a signal that came, or 0.

    Raises TrainingError if a loss is not finite, if `out` holds a training of other settings or
    data, or if its checkpoint is damaged; Stopped, after saving, when a signal came.
    """
    started = time.monotonic()
    done = _already_trained(store, out, config, data)
    if done is not None:
        print(f"already trained: {store.url(out)}/generator", file=sys.stderr)
        return {**done, "already_trained": True, "seconds": 0.0}

    # Build, and go on from the last checkpoint
    device = _set_up(config)
    state = _new_state(config, data, device)
    _resume(store, out, config, data=data, state=state)
    batches = Batches(data.images, data.labels, batch=config.batch, seed=config.seed, device=device)
    weights = positive_weights(torch.from_numpy(np.asarray(data.labels, dtype=np.float32)))
    weights = weights.to(device)
    seen = state.step * config.batch
    total = config.total_steps
    tick_steps = config.steps_of(config.tick_kimg)
    snapshot_steps = config.steps_of(config.snapshot_kimg)
    log = TickLog(store, out, images_seen=seen, report=report, tracker=tracker)
    tracker.params(dataclasses.asdict(config) | {"manifest_digest": data.manifest_digest})

    # Train
    tick = _Tick(state.step, config.batch)
    metrics: dict[str, float] = {}
    with terminal_bar(total * config.batch, seen) as advance:
        while state.step < total:
            tick.add(train_step(state, config, batches, positive_weight=weights))
            advance(config.batch)
            stopped_by = stop_signal()
            last = state.step == total
            snapshot_due = last or state.step % snapshot_steps == 0
            if last or stopped_by or snapshot_due or state.step % tick_steps == 0:
                metrics = tick.metrics()  # raises if a loss was not finite: nothing bad is saved
                log.tick(metrics, of_images=total * config.batch)
                tick = _Tick(state.step, config.batch)
            if stopped_by or snapshot_due:
                _save_checkpoint(store, out, config, data=data, state=state)
            if snapshot_due:
                _save_samples(store, out, config, data=data, state=state)
            if stopped_by and not last:
                raise Stopped(
                    stopped_by,
                    f"stopped at {state.step * config.batch:,} pictures and saved; "
                    "the same command goes on from there",
                )

    # Leave the generator
    facts = _facts(config, data, device) | {"metrics": metrics}
    facts["images_seen"] = state.step * config.batch
    facts["samples"] = _samples_path(out, facts["images_seen"])
    _save_generator(store, f"{out}/generator", data=data, state=state, facts=facts)
    seconds = round(time.monotonic() - started, 2)
    return _summary(out, facts) | {"already_trained": False, "seconds": seconds}


def train_step(
    state: TrainState, config: TrainConfig, batches: Batches, *, positive_weight: Tensor
) -> dict[str, Tensor]:
    """Takes one step of D, one of G and one of the average; returns detached scalar losses."""
    loss = ADVERSARIAL[config.loss]
    G, D, rng = state.G, state.D, state.rng
    reals, labels = batches.at(state.step)
    reals = flipped(reals, rng) if config.flip else reals
    reals = translated(reals, config.translate_px, rng)

    # D: reals against fakes, and the reals' labels
    fakes, asked = _fakes(state, config, batches)  # drawn once, for D and for G
    real_logits, real_labels = D(reals, labels)
    fake_logits, _ = D(translated(fakes.detach(), config.translate_px, rng), asked)
    d_adversarial = loss.d(real_logits, fake_logits)
    d_labels = label_loss(real_labels, labels, positive_weight)
    d_total = d_adversarial + config.d_label_weight * d_labels
    penalised = config.r1_gamma > 0 and state.step % config.r1_every == 0
    r1 = r1_penalty(D, reals, labels).mean() if penalised else torch.zeros_like(d_total)
    _descend(state.opt_d, d_total + config.r1_gamma / 2 * config.r1_every * r1)

    # G: fakes that D takes for reals and that show the asked-for labels
    D.requires_grad_(False)  # spares the gradients of D's weights, which nobody wants here
    fake_logits, fake_labels = D(translated(fakes, config.translate_px, rng), asked)
    g_adversarial = loss.g(real_logits.detach(), fake_logits)
    g_labels = label_loss(fake_labels, asked, positive_weight)
    _descend(state.opt_g, g_adversarial + config.g_label_weight * g_labels)
    D.requires_grad_(True)

    # The average that is drawn from
    state.step += 1
    update_average(
        state.ema, G, step=state.step, half_life_steps=config.ema_kimg * 1000 / config.batch
    )
    losses = {"d": d_adversarial, "g": g_adversarial, "d_labels": d_labels, "g_labels": g_labels}
    return {name: value.detach() for name, value in losses.items()} | {"r1": r1.detach()}


@torch.no_grad()
def update_average(ema: nn.Module, G: nn.Module, *, step: int, half_life_steps: float) -> None:
    """Moves the averaged weights towards G's; early on faster, so that the start is forgotten.

    decay = min(0.5^(1/half_life), (1 + step) / (10 + step)); buffers (batch statistics) are copied.
    """
    decay = min(0.5 ** (1 / half_life_steps), (1 + step) / (10 + step))
    for average, current in zip(ema.parameters(), G.parameters(), strict=True):
        average.lerp_(current, 1 - decay)
    for kept, latest in zip(ema.buffers(), G.buffers(), strict=True):
        kept.copy_(latest)


def _fakes(state: TrainState, config: TrainConfig, batches: Batches) -> tuple[Tensor, Tensor]:
    asked = batches.labels_of_fakes(state.rng)
    spec = state.G.spec
    draw = torch.randn if spec.z_dist == "normal" else torch.rand
    z = draw(config.batch, spec.z_dim, generator=state.rng).to(asked.device)
    return state.G(z, asked), asked


def _descend(optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
    optimiser.zero_grad(set_to_none=True)
    loss.backward()  # type: ignore[no-untyped-call]
    optimiser.step()


class _Tick:
    """Losses since the last tick, kept on the device so that no step waits for them."""

    def __init__(self, first_step: int, batch: int) -> None:
        self._first, self._batch = first_step, batch
        self._rows: list[Tensor] = []
        self._names: list[str] = []
        self._started = time.monotonic()

    def add(self, losses: dict[str, Tensor]) -> None:
        self._names = list(losses)
        self._rows.append(torch.stack(list(losses.values())))

    def metrics(self) -> dict[str, float]:
        """Means over the tick; raises TrainingError naming the first step that was not finite."""
        table = torch.stack(self._rows).double().cpu()
        bad = (~torch.isfinite(table)).nonzero()
        if len(bad):
            row, column = bad[0].tolist()
            raise TrainingError(
                f"step {self._first + row + 1}: the loss {self._names[column]} is "
                f"{table[row, column].item()}; the last checkpoint is from before it. Try smaller "
                "lr_g and lr_d, or a larger r1_gamma."
            )
        images = (self._first + len(table)) * self._batch
        seconds = max(time.monotonic() - self._started, 1e-9)
        metrics = dict(zip(self._names, table.mean(dim=0).tolist(), strict=True))
        return metrics | {
            "images_seen": images,
            "kimg": images / 1000,
            "pictures_per_s": len(table) * self._batch / seconds,
        }


def _set_up(config: TrainConfig) -> torch.device:
    device = config.torch_device()
    if config.threads:
        torch.set_num_threads(config.threads)
    torch.backends.cudnn.benchmark = False  # it may choose other kernels on another day
    torch.backends.cudnn.deterministic = True
    torch.manual_seed(config.seed)
    return device


def _new_state(config: TrainConfig, data: TrainingSet, device: torch.device) -> TrainState:
    family = family_of(config.family)
    G = family.generator(family.spec(data.label_names, width=config.g_width)).to(device)
    D = family.discriminator(family.spec(data.label_names, width=config.d_width)).to(device)
    betas = (config.beta1, config.beta2)
    return TrainState(
        G=G,
        D=D,
        ema=copy.deepcopy(G).eval().requires_grad_(False),
        opt_g=torch.optim.Adam(G.parameters(), lr=config.lr_g, betas=betas),
        opt_d=torch.optim.Adam(D.parameters(), lr=config.lr_d, betas=betas),
        rng=torch.Generator().manual_seed(config.seed),
    )


def _resume(
    store: Store, out: str, config: TrainConfig, *, data: TrainingSet, state: TrainState
) -> None:
    places = checkpoints.finished(store, f"{out}/checkpoints")
    if not places:
        return
    facts = checkpoints.facts_of(store, places[-1])
    _check_same(facts, config, data, where=store.url(out))
    checkpoints.load(store, places[-1], state)
    print(f"going on from {facts['images_seen']:,} pictures", file=sys.stderr)


# A training may go on under other values of these: they do not change what a step does.
_MAY_CHANGE = ("total_kimg", "tick_kimg", "snapshot_kimg", "keep_checkpoints", "device", "threads")


def _check_same(
    facts: dict[str, Any], config: TrainConfig, data: TrainingSet, *, where: str
) -> None:
    faults = [
        f"{name} was {facts['config'].get(name)!r}, now {value!r}"
        for name, value in dataclasses.asdict(config).items()
        if name not in _MAY_CHANGE and facts["config"].get(name) != value
    ]
    if facts["manifest_digest"] != data.manifest_digest:
        faults.append(
            f"the manifest was {facts['manifest_digest'][:12]}…, now {data.manifest_digest[:12]}…"
        )
    if faults:
        raise TrainingError(
            f"{where} holds another training: {'; '.join(faults)}. Choose another --out."
        )


def _already_trained(
    store: Store, out: str, config: TrainConfig, data: TrainingSet
) -> dict[str, Any] | None:
    path = f"{out}/generator/{TRAIN}"
    if not store.exists(path):
        return None
    facts = store.read_json(path)
    _check_same(facts, config, data, where=store.url(out))
    if facts["images_seen"] < config.total_steps * config.batch:
        return None
    return _summary(out, facts)


def _summary(out: str, facts: dict[str, Any]) -> dict[str, Any]:
    names = ["family", "images_seen", "config", "config_digest", "manifest_digest", "device"]
    names += ["metrics", "samples"]
    return {"generator": f"{out}/generator"} | {name: facts[name] for name in names}


def _facts(config: TrainConfig, data: TrainingSet, device: torch.device) -> dict[str, Any]:
    return {
        "family": config.family,
        "config": dataclasses.asdict(config),
        "config_digest": config.digest,
        "manifest_digest": data.manifest_digest,
        "pictures": len(data.images),
        "code_version": code_version(),
        "seed": config.seed,
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else "cpu",
    }


def code_version() -> str:
    """Returns 16 hex digits of the sha256 over this room's sources: which code trained it."""
    room = Path(__file__).parent
    sha256 = hashlib.sha256()
    for path in sorted(room.rglob("*.py")):
        sha256.update(path.relative_to(room).as_posix().encode() + b"\0" + path.read_bytes())
    return sha256.hexdigest()[:16]


def _save_checkpoint(
    store: Store, out: str, config: TrainConfig, *, data: TrainingSet, state: TrainState
) -> None:
    folder = f"{out}/checkpoints"
    facts = {"config": dataclasses.asdict(config), "manifest_digest": data.manifest_digest}
    checkpoints.save(store, folder, state, images=state.step * config.batch, facts=facts)
    checkpoints.prune(store, folder, keep=config.keep_checkpoints)


def _save_samples(
    store: Store, out: str, config: TrainConfig, *, data: TrainingSet, state: TrainState
) -> None:
    pictures = sample_sheet(state.ema, np.asarray(data.labels), seed=config.seed)
    sheet = io.BytesIO()
    grid(pictures, 8).save(sheet, "PNG")
    path = _samples_path(out, state.step * config.batch)
    store.write_bytes(path, sheet.getvalue(), durable=False)


def _samples_path(out: str, images: int) -> str:
    return f"{out}/samples/{images:010d}.png"


def _save_generator(
    store: Store, folder: str, *, data: TrainingSet, state: TrainState, facts: dict[str, Any]
) -> None:
    tensors = {name: t.detach().cpu().contiguous() for name, t in state.ema.state_dict().items()}
    store.write_bytes(f"{folder}/{WEIGHTS}", safetensors.torch.save(tensors))
    store.write_json(f"{folder}/{SPEC}", state.ema.spec.to_json())
    typical = typical_labels(np.asarray(data.labels), TYPICAL_ROWS, facts["seed"])
    store.write_json(f"{folder}/{TYPICAL}", [names_of(row, data.label_names) for row in typical])
    store.write_json(f"{folder}/{TRAIN}", facts)
