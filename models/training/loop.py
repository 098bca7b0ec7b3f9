"""The training loop: one function from data to a saved generator, read from top to bottom.

The preparation stands at the end: the machine set up, networks and optimisers made.
"""

import contextlib
import copy
import dataclasses
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from dataset.errors import ConfigError, TrainingError
from dataset.store import Store
from dataset.vocabulary import sided
from models.config import TrainConfig
from models.families import family_of
from models.families.base import GeneratorNet
from models.io.entry_point import Report, Stopped
from models.labels import typical_labels
from models.metrics.distances import Statistics, frechet_distance, statistics
from models.metrics.extractors import AUTO, Extractor, chosen_extractor, chunks, extractor
from models.sampling.draw import draw
from models.training import distributed
from models.training.checkpoint import TrainState, labels_in_use
from models.training.data import Batches, TrainingSet
from models.training.distributed import described, held_device, synchronise
from models.training.losses import positive_weights
from models.training.parts import Parts, check_compiled
from models.training.progress_log import Forecast, TerminalBar, Tick, TickLog, Tracker
from models.training.run_folder import FRAMES, GROWTH, TrainingFolder
from models.training.step import train_step

MEET_STEPS = 16  # of GPUs between looks at signals and clocks; torchrun kills after 30 s
CLOCKS = {"wall": time.monotonic, "processor": time.process_time}  # what training time is read from


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
    clock: str = "wall",
) -> dict[str, Any]:
    """Trains below the folder `out` of the store, from its last checkpoint on; returns a summary.

    Leaves `generator/` (averaged weights of the best-scored or the last snapshot, spec.json,
    train.json), `checkpoints/`, `samples/`, growth.gif and progress.jsonl. A finished training of
    the same settings and data returns at once, with `"already_trained": true`. stop_signal() gives
    the number of a signal that came, or 0.

    continue_from is the folder of another training of the same settings and labels (in whichever
    order), perhaps on a smaller manifest: a new `out` starts from its last checkpoint and trains
    config.total_kimg more.
    Under `torchrun` every process calls this alike, and the first one writes.

    clock is what max_minutes counts: "wall", or "processor", the time that this process used of the
    processors, which other work on the machine does not shorten. On a GPU that says nothing.

    Raises ConfigError if config.flip is true and a label tells left from right, for an unknown
    clock, and for the clock "processor" on a GPU; TrainingError if a loss is not finite, if `out`
    holds a training of other settings or data, or if its checkpoint is damaged; Stopped, after
    saving, when a signal came.
    """
    started = time.monotonic()
    data = data.of_family(family_of(config.family))
    data = data.in_order(labels_in_use(store, out, continue_from))
    _check_flips(config, data.label_names)
    if clock not in CLOCKS:
        raise ConfigError(f'the clock is "{clock}"; {" or ".join(CLOCKS)} wanted')
    folder = TrainingFolder(store, out, config, data)
    done = folder.already_trained()
    if done is not None:
        print(f"already trained: {store.url(out)}/generator", file=sys.stderr)
        return {**done, "already_trained": True, "seconds": 0.0}
    with held_device(config.device) as device, _joined(config, device):
        if clock == "processor" and device.type != "cpu":
            raise ConfigError(f"processor time says nothing on {described(device)}; set clock wall")
        _train(
            folder,
            device,
            report=report,
            tracker=tracker,
            stop_signal=stop_signal,
            continue_from=continue_from,
            now=CLOCKS[clock],
        )
    seconds = round(time.monotonic() - started, 2)
    return folder.summary() | {"already_trained": False, "seconds": seconds}


def _train(
    folder: TrainingFolder,
    device: torch.device,
    *,
    report: Report,
    tracker: Tracker,
    stop_signal: Callable[[], int],
    continue_from: str,
    now: Callable[[], float],
) -> None:
    """Trains to the end and leaves the generator; see `train`."""
    # Build, and resume from the last checkpoint
    config, data, is_main_process = folder.config, folder.data, distributed.rank() == 0
    set_up(config, device)
    state = new_state(config, data.label_names, device)
    folder.resume(state, continue_from, is_main_process=is_main_process)
    parts = Parts(state.G, state.D, bf16=uses_bf16(config, device), compiled=config.compile)
    batches = Batches(data.images, data.labels, batch=config.batch, seed=config.seed, device=device)
    weights = positive_weights(torch.from_numpy(np.asarray(data.labels, dtype=np.float32)))
    weights = weights.to(device)

    def take_step(state: TrainState, config: TrainConfig, parts: Parts) -> dict[str, Tensor]:
        return train_step(state, config, batches, parts=parts, positive_weight=weights)

    if config.compile:
        errors = check_compiled(state, config, parts=parts, take_step=take_step)
        _print_errors(errors, is_main_process=is_main_process)
    score = _score(folder, device, state.G.spec.trained_on_features) if is_main_process else None
    score_name = score.name if score else ""
    first = folder.origin["step"] if folder.origin else 0
    total = first + config.total_steps
    each = config.images_a_step
    tick_steps = config.steps_of(config.tick_kimg)
    snapshot_steps = config.steps_of(config.snapshot_kimg)
    log = TickLog(
        folder.store,
        folder.out,
        images_seen=state.step * each,
        report=report,
        tracker=tracker,
        is_main_process=is_main_process,
    )
    if is_main_process:
        print(f"training {config.family} on {described(device)}", file=sys.stderr)
        tracker.params(folder.identity() | dataclasses.asdict(config))

    # Train
    tick = Tick(state, config, device)
    metrics: dict[str, float] = {}
    forecast = Forecast(config, faces=len(data.images))
    bar_end = None if config.max_minutes > 0 else total * each
    with (
        contextlib.closing(batches),
        TerminalBar(bar_end, state.step * each, is_main_process=is_main_process) as bar,
    ):
        state.done = config.done(state.step - first, state.seconds)
        began = now()
        while state.done < 1:
            tick.add(take_step(state, config, parts))
            bar.advance(each)
            tick_due = state.step % tick_steps == 0 or state.step == total
            snapshot_due = state.step % snapshot_steps == 0
            stopped_by = 0
            if tick_due or snapshot_due or device.type == "cpu" or state.step % MEET_STEPS == 0:
                synchronise(device)  # what was only queued so far takes its time as well
                # Several ranks agree on the time, which their learning rates may follow
                state.seconds = distributed.max_over_ranks(state.seconds + now() - began)
                began = now()
                stopped_by = int(distributed.max_over_ranks(stop_signal()))
                if line := forecast.line(state.step - first, state.seconds):
                    bar.write(line)
            before, state.done = state.done, config.done(state.step - first, state.seconds)
            ended = state.done == 1
            snapshot_due = ended or snapshot_due
            # On a slow machine a time limit may come before the first snapshot
            sheet_due = snapshot_due or (
                config.max_minutes > 0 and int(state.done * FRAMES) > int(before * FRAMES)
            )
            if tick_due or stopped_by or snapshot_due:
                metrics = tick.metrics()  # raises if one is not finite: nothing bad is saved
                metrics["minutes"] = round(state.seconds / 60, 4)
            if is_main_process and snapshot_due and score is not None:
                metrics[score_name] = score.of(state.ema)
            if is_main_process and (stopped_by or snapshot_due):
                folder.save_checkpoint(state, metrics.get(score_name), score_name)
            if is_main_process and sheet_due:
                tracker.image("samples", folder.save_samples(state), state.step * each)
                began = now()
            if tick_due or stopped_by or snapshot_due:
                of_images = (first + round((state.step - first) / state.done)) * each
                saved = bool(stopped_by or snapshot_due)
                log.tick(metrics, of_images=of_images, saved=saved)
                bar.tell(metrics, of_images=of_images)
                tick = Tick(state, config, device)
                began = now()
            if stopped_by and not ended:
                distributed.wait_for_all()  # torchrun ends all as soon as one of them has ended
                raise Stopped(
                    stopped_by,
                    f"stopped at {state.step * each:,} pictures and saved; "
                    "the same command goes on from there",
                )

    # Leave the generator
    if is_main_process:
        tracker.file(GROWTH, folder.save_growth(state))
        facts = folder.facts(state, device) | {"metrics": metrics}
        folder.save_generator(state, facts, score_name)
    distributed.wait_for_all()


@contextlib.contextmanager
def _joined(config: TrainConfig, device: torch.device) -> Iterator[None]:
    """Joins the other processes of `torchrun`, if there are any and the caller has not done so.

    Raises ConfigError if the batch cannot be shared out.
    """
    joined = distributed.join(device)
    try:
        # No two processes share a group of pictures that D sees together.
        family = family_of(config.family)
        unit = distributed.world() * (family.group or family.d_group)
        if distributed.world() > 1 and config.batch % unit:
            raise ConfigError(
                f"batch is {config.batch}; a multiple of {unit} is wanted for "
                f"{distributed.world()} processes"
            )
        yield
    finally:
        if joined:
            distributed.leave()


def _check_flips(config: TrainConfig, label_names: tuple[str, ...]) -> None:
    """Raises ConfigError naming the labels that mirrored pictures would make wrong."""
    wrong = sided(label_names) if config.flip else []
    if wrong:
        raise ConfigError(
            f"flip is true, and {', '.join(wrong)} tells left from right: mirrored pictures "
            "would be labelled wrongly. Set flip=false."
        )


def _print_errors(errors: dict[str, float], *, is_main_process: bool) -> None:
    if is_main_process:
        largest = ", ".join(f"{name} {error:.1e}" for name, error in errors.items())
        print(f"compiled and eager gradients, off those of float32: {largest}", file=sys.stderr)


SLOW_PACE = 0.01  # of the step of a generator's slow parameters


def set_up(config: TrainConfig, device: torch.device) -> None:
    """Sets threads, kernels, precision of products and the seed, as every training has them."""
    if config.threads:
        torch.set_num_threads(config.threads)
    if device.type == "cuda":
        if config.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # cuBLAS has it so
        # Warns where there is no such kernel: the gradient of grid_sample is a sum by atomics.
        torch.use_deterministic_algorithms(config.deterministic, warn_only=True)
        torch.backends.cudnn.deterministic = config.deterministic
        torch.backends.cudnn.benchmark = not config.deterministic  # the fastest kernels, by trial
        torch.set_float32_matmul_precision("high")
        torch.cuda.reset_peak_memory_stats(device)
    torch.manual_seed(config.seed)


def uses_bf16(config: TrainConfig, device: torch.device) -> bool:
    """Tells whether the networks run under autocast to bfloat16."""
    if config.precision == "auto":
        # Emulated where the hardware lacks it (below compute capability 8): slower than fp32.
        return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    return config.precision == "bf16"


def new_state(
    config: TrainConfig, label_names: tuple[str, ...], device: torch.device
) -> TrainState:
    """Returns networks, optimisers and sources as they are before the first step."""
    family = family_of(config.family)
    G = family.generator(family.spec(label_names, config.g_size()))
    D = family.discriminator(family.spec(label_names, config.d_size()))
    # NHWC is what the tensor cores of a GPU want; on a CPU it is slower.
    if device.type != "cpu":
        for network in (G, D):
            network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def adam(groups: list[dict[str, Any]]) -> torch.optim.Adam:
        betas = (config.beta1, config.beta2)
        return torch.optim.Adam(groups, betas=betas, eps=config.adam_eps, fused=True)

    # A GPU's two sources would give noise maps the numbers of the latents.
    other = 1 if device.type != "cpu" else 0
    return TrainState(
        G=G,
        D=D,
        ema=copy.deepcopy(G).eval().requires_grad_(False),
        opt_g=adam(_paced(G, config.lr_g)),
        opt_d=adam([{"params": list(D.parameters()), "lr": config.lr_d, "pace": 1.0}]),
        rng=torch.Generator(device).manual_seed(config.seed),
        device_rng=torch.Generator(device).manual_seed(config.seed + other),
        aug_p=torch.tensor(config.aug_p, device=device),
        real_sign=torch.zeros((), device=device),
        path_mean=torch.zeros((), device=device),
    )


def _paced(G: GeneratorNet, lr: float) -> list[dict[str, Any]]:
    """Returns G's parameters with their steps: those that it names slow take a hundredth."""
    named = list(G.named_parameters())
    slow = [weight for name, weight in named if name.endswith(G.slow)]
    others = [weight for name, weight in named if not name.endswith(G.slow)]
    groups = [{"params": others, "lr": lr, "pace": 1.0}]
    return [*groups, {"params": slow, "lr": lr * SLOW_PACE, "pace": SLOW_PACE}] if slow else groups


class SnapshotScore:
    """Measures averaged weights against training pictures, always the same ones.

    It is for comparing snapshots of one training, and no substitute for the evaluation: few
    pictures, and those that were trained on.
    """

    def __init__(
        self,
        images: npt.NDArray[np.uint8],
        labels: npt.NDArray[np.generic],
        *,
        count: int,
        seed: int,
        device: str,
        trained_on: Sequence[str] = (),
    ) -> None:
        """Takes the features of up to `count` of images [N,3,R,R]; labels [N,L] of 0 and 1.

        trained_on: the extractors whose features the training sees; another one is taken.

        Raises TrainingError if the extractor's packages are not installed.
        """
        self._network: Extractor = extractor(chosen_extractor(AUTO, trained_on), device=device)
        self._labels, self._seed, self._device = np.asarray(labels), seed, device
        rows = np.random.default_rng(seed).permutation(len(images))[:count]
        self._count = len(rows)
        self._reals = self._statistics(images[np.sort(rows)].transpose(0, 2, 3, 1))

    @property
    def name(self) -> str:
        """The score's name: what it is, of which features, on how many pictures."""
        return f"snapshot_fd_{self._network.name}_{self._count}"

    def of(self, generator: GeneratorNet) -> float:
        """Returns the distance of as many fakes, drawn with fixed seeds and real labels."""
        labels = typical_labels(self._labels, self._count, self._seed)
        seeds = range(self._seed, self._seed + self._count)
        return frechet_distance(self._statistics(draw(generator, labels, seeds)), self._reals)

    def _statistics(self, pictures: npt.NDArray[np.uint8]) -> Statistics:
        return statistics(self._network(chunks(pictures), device=self._device))


def _score(
    folder: TrainingFolder, device: torch.device, trained_on: Sequence[str]
) -> SnapshotScore | None:
    """Returns the score of a training's snapshots, or None for 0 pictures or no extractor.

    The latter is reported on stderr: a machine that only trains need not have it.
    """
    config, data = folder.config, folder.data
    if config.score_pictures == 0:
        return None
    try:
        return SnapshotScore(
            data.images,
            data.labels,
            count=config.score_pictures,
            seed=config.seed,
            device=str(device),
            trained_on=trained_on,
        )
    except TrainingError as error:
        print(f"snapshots are not scored: {error}", file=sys.stderr)
        return None
