"""Finds directions: of the judge's labels, and by factorisation of the first weights that w meets.

A label's direction is regressed: how the judge's logit goes with w over fakes, as much of it as
moves the other qualities little. One found by factorisation is an eigenvector of AᵀA, A the weights
of the styles of some layers; what it changes is measured, and only what is clear names it. The
effects of all are measured on characters that were not regressed on.

Colours of hair and eyes have no direction: they are labels that a strength pulls. Source of the
factorisation: Shen and Zhou 2021, arXiv:2007.06600.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import torch

from dataset.manifest import Manifest
from dataset.store import Store
from dataset.vocabulary import appearance
from models.evaluation.evaluate import judge_of
from models.evaluation.fakes import EvalProgress, eval_progress
from models.evaluation.feature_rows import RowExtractor
from models.evaluation.plan import Protocol, labels_for_generator, real_feature_rows, split_of
from models.families.base import GeneratorNet
from models.io.entry_point import Report
from models.io.generators import generator_digest
from models.labels import Rows, typical_labels
from models.metrics.extractors import Extractor
from models.metrics.label_control import hair_tones
from models.sampling.characters import (
    Characters,
    as_normal,
    characters,
    draw_characters,
    mapped,
    shift_shape,
)
from models.sampling.directions import DIRECTIONS, Direction, Directions, read_directions
from models.sampling.draw import CHUNK, Pictures

Array = npt.NDArray[np.float64]

LEAST_FAKES = 256  # of a set
HAIR_LENGTH = "hair_length"
_COLOURS = ("hair_colour", "eye_colour")  # groups
_NOISE = 1e-9  # of a quality or a latent that never changes


@dataclasses.dataclass(frozen=True)
class DirectionConfig:
    """How directions are found.

    Attributes:
        fakes: pictures that are regressed on.
        probes: characters whose pictures are drawn an amount of 1 both ways along each direction.
        regressed: how many qualities get a direction at most, those that w explains best.
        factors: eigenvectors that are tried for each part of the layers: coarse, middle, fine; for
            a generator without W twice as many, of its first layer.
        ridge: of the regression, as a share of the fakes.
        alike: qualities with a larger correlation over fakes need not stay when one is moved.
        evenness: the larger, the more a label's direction may move besides.
        clear: least effect of a direction that bears a name.
        clearer: how many times that effect must exceed the mean effect on unlike qualities.
        faint: a factor whose largest effect is below is left out, and all that is regressed and
            not clear.
        parallel: of two directions with a larger cosine only one is kept.

    """

    fakes: int = 512
    probes: int = 12
    regressed: int = 24
    factors: int = 3
    ridge: float = 0.05
    alike: float = 0.5
    evenness: float = 0.2
    clear: float = 0.15
    clearer: float = 3.0
    faint: float = 0.1
    parallel: float = 0.9
    seed: int = 1_000_003  # beyond the seeds of most evaluations
    version: int = 1


@dataclasses.dataclass(frozen=True, eq=False)
class Qualities:
    """What is measured of a picture: the judge's labels, and what pixels say.

    Hair lengths that the judge knows by two labels are one quality.
    """

    labels: Sequence[str]  # of the judge, in its order
    extract: RowExtractor

    @property
    def names(self) -> list[str]:
        """The names, labels first."""
        length = [HAIR_LENGTH] if self._has_length else []
        return [*(self.labels[at] for at in self._own), *length, *PIXELS]

    def of(self, pictures: Pictures) -> Array:
        """Returns the qualities [n,Q] of pictures [n,H,W,3]."""
        rows = self.extract(pictures)
        logits = np.asarray(rows[:, rows.shape[1] - len(self.labels) :], dtype=np.float64)
        parts = [logits[:, self._own]]
        if self._has_length:
            long, short = (self.labels.index(name) for name in ("long_hair", "short_hair"))
            parts.append((logits[:, long] - logits[:, short])[:, None])
        return np.concatenate([*parts, pixel_qualities(pictures)], axis=1)

    @property
    def _has_length(self) -> bool:
        return {"long_hair", "short_hair"} <= set(self.labels)

    @property
    def _own(self) -> list[int]:
        groups = appearance().groups if self._has_length else {}
        return [at for at, label in enumerate(self.labels) if groups.get(label, "") != HAIR_LENGTH]


PIXELS = (
    "brightness",
    "contrast",
    "colourfulness",
    "warmth",
    "hair_brightness",
    "hair_warmth",
    "background_brightness",
    "detail",
    "sideways",
    "downwards",
)


def pixel_qualities(pictures: Pictures) -> Array:
    """Returns PIXELS [n,10] of pictures [n,H,W,3], in Lab or in parts of the picture's side.

    Means of lightness, its deviation, of chroma and of b (yellow less blue); lightness and b of the
    hair band; lightness of the upper corners; mean gradient of lightness, and how far the centre of
    these gradients lies to the right and down.
    """
    lab = np.stack([cv2.cvtColor(np.ascontiguousarray(one), cv2.COLOR_RGB2LAB) for one in pictures])
    lab = lab.astype(np.float64) - [0, 128, 128]  # [n,H,W,3]
    light, side = lab[..., 0], lab.shape[1]
    tones = hair_tones(pictures) - [0, 128, 128]
    corner = side // 6
    corners = np.concatenate([light[:, :corner, :corner], light[:, :corner, -corner:]], axis=2)
    down, right = np.gradient(light, axis=(1, 2))
    edges = np.hypot(down, right)  # [n,H,W]
    weight = edges / edges.sum(axis=(1, 2), keepdims=True).clip(min=_NOISE)
    places = (np.arange(side) + 0.5) / side - 0.5
    return np.stack(
        [
            light.mean(axis=(1, 2)),
            light.std(axis=(1, 2)),
            np.hypot(lab[..., 1], lab[..., 2]).mean(axis=(1, 2)),
            lab[..., 2].mean(axis=(1, 2)),
            tones[:, 0],
            tones[:, 2],
            np.median(corners, axis=(1, 2)),
            edges.mean(axis=(1, 2)),
            (weight.sum(axis=1) * places).sum(axis=1),
            (weight.sum(axis=2) * places).sum(axis=1),
        ],
        axis=1,
    )


def find_directions(
    generator: GeneratorNet,
    typical: Rows,
    qualities: Qualities,
    progress: EvalProgress,
    config: DirectionConfig = DirectionConfig(),
) -> Directions | None:
    """Finds the directions of a generator, the clearest labels first; None if it has none.

    typical: label rows [M,L] of 0 and 1, which fakes are drawn for. Deterministic.
    """
    spec = generator.spec

    def some(count: int, seed: int) -> Characters:
        labels = typical_labels(typical, count, seed)
        return characters(spec, range(seed, seed + count), labels)

    progress.stage("directions: fakes")
    fakes = some(config.fakes, config.seed)
    found = _measured(generator, fakes, qualities, progress)  # [N,Q]
    spread = found.std(axis=0).clip(min=_NOISE)
    places = _places(generator, fakes)  # [N,D]
    standardised = (found - found.mean(axis=0)) / spread
    unlike = np.abs(standardised.T @ standardised / len(found)) < config.alike  # [Q,Q]
    candidates = [
        *_regressed(places, standardised, unlike, qualities.names, shift_shape(spec), config),
        *_of_factors(generator, places, config),
    ]
    progress.stage("directions: effects")
    probes = some(config.probes, config.seed + config.fakes)
    named = []
    for wanted, shift in candidates:
        effects = _effects(generator, probes, shift, qualities, progress) / spread  # [Q]
        named.append(_named(wanted, shift, effects, unlike, qualities.names, config))
    chosen = _chosen([one for one in named if one is not None], config)
    if not chosen:
        return None
    facts = dataclasses.asdict(config) | {"judge": _judge_digest(qualities)}
    return Directions(tuple(chosen), generator_digest(generator), facts)


def pictures_of(generator: GeneratorNet, config: DirectionConfig, qualities: Qualities) -> int:
    """Returns how many pictures `find_directions` draws, at most."""
    weights = len(generator.style_weights())
    factors = config.factors * len(_parts(weights)) * (2 if weights == 1 else 1)
    labels = min(config.regressed, len(_targets(qualities.names)))
    return config.fakes + 2 * config.probes * (factors + labels)


def _judge_digest(qualities: Qualities) -> str:
    judge = qualities.extract.judge
    return judge.digest if judge else ""


def _places(generator: GeneratorNet, who: Characters) -> Array:
    """Returns where characters lie, as shifts move them: w [N,W], or normal latents [N,Z]."""
    if generator.spec.can_w:
        return mapped(generator, who)[:, 0].double().numpy()
    return as_normal(who.z, generator.spec).numpy()


def _measured(
    generator: GeneratorNet, who: Characters, qualities: Qualities, progress: EvalProgress
) -> Array:
    rows = []
    for start in range(0, len(who), CHUNK):
        part = slice(start, start + CHUNK)
        some = Characters(
            who.seeds[part],
            who.labels[part],
            who.z[part],
            None if who.w_shift is None else who.w_shift[part],
        )
        rows.append(qualities.of(draw_characters(generator, some)))
        progress.advance(len(some))
    return np.concatenate(rows)


def _effects(
    generator: GeneratorNet,
    probes: Characters,
    shift: npt.NDArray[np.float32],
    qualities: Qualities,
    progress: EvalProgress,
) -> Array:
    """Returns how much an amount of 1 moves each quality [Q], in its own unit."""
    both = []
    for amount in (1.0, -1.0):
        moved = torch.from_numpy(amount * shift).expand(len(probes), -1, -1)
        who = characters(generator.spec, probes.seeds, probes.labels, shift=moved)
        both.append(_measured(generator, who, qualities, progress).mean(axis=0))
    effects: Array = (both[0] - both[1]) / 2
    return effects


def _targets(names: Sequence[str]) -> list[int]:
    """Returns the places of the qualities that get a direction of their own."""
    groups = appearance().groups
    return [at for at, name in enumerate(names) if groups.get(name) not in _COLOURS]


Candidate = tuple[str, npt.NDArray[np.float32]]  # a label, or "" for a factor, and a shift [R,D]


def _regressed(
    places: Array,
    found: Array,
    unlike: npt.NDArray[np.bool_],
    names: Sequence[str],
    shape: tuple[int, int],
    config: DirectionConfig,
) -> list[Candidate]:
    """Returns the qualities' directions, regressed over standardised qualities `found` [N,Q]."""
    centred = places - places.mean(axis=0)
    sizes, axes = np.linalg.eigh(centred.T @ centred / len(places))
    kept = np.argsort(sizes)[::-1][: max(1, len(places) // 4)]
    kept = kept[sizes[kept] > 1e-4 * sizes.max()]
    scale = axes[:, kept] * np.sqrt(sizes[kept])  # [D,q]
    white = centred @ (axes[:, kept] / np.sqrt(sizes[kept]))  # [N,q], each of variance 1
    count, width = white.shape
    gram = white.T @ white + config.ridge * count * np.eye(width)
    slopes = np.linalg.solve(gram, white.T @ found)  # [q,Q]
    candidates: list[Candidate] = []
    targets = sorted(_targets(names), key=lambda at: -np.linalg.norm(slopes[:, at]))
    for at in targets[: config.regressed]:
        # Qualities that nearly are the same one, such as two brightnesses, may move together.
        others = slopes[:, unlike[at]]
        # The greatest (slope·d)² for Σ (others·d)² + evenness: as a discriminant, in closed form.
        across = others @ others.T + config.evenness * np.eye(width)
        way = np.linalg.solve(across, slopes[:, at])
        length = np.linalg.norm(way)
        # Half, because a regression over few fakes finds less than there is.
        if length > _NOISE and slopes[:, at] @ way >= config.clear / 2 * length:
            vector = (scale @ (way / length)).astype(np.float32)  # [D], of each w the same
            candidates.append((names[at], np.broadcast_to(vector, shape).copy()))
    return candidates


def _parts(weights: int) -> list[slice]:
    """Returns which w a factor moves: the coarse, the middle, the fine ones, or the latent."""
    if weights <= 1:
        return [slice(0, weights)] * weights
    third = weights / 3
    edges = [0, round(third), round(2 * third), weights]
    return [slice(*edges[at : at + 2]) for at in range(3)]


def _of_factors(generator: GeneratorNet, places: Array, config: DirectionConfig) -> list[Candidate]:
    weights = [one.detach().double().cpu().numpy() for one in generator.style_weights()]
    tried = config.factors * (2 if len(weights) == 1 else 1)
    candidates = []
    for part in _parts(len(weights)):
        energy = sum(one.T @ one for one in weights[part])
        _, axes = np.linalg.eigh(energy)
        for axis in axes.T[::-1][:tried]:
            shift = np.zeros(shift_shape(generator.spec), dtype=np.float32)
            shift[part] = axis * (places @ axis).std()
            candidates.append(("", shift))
    return candidates


def _named(
    wanted: str,
    shift: npt.NDArray[np.float32],
    effects: Array,
    unlike: npt.NDArray[np.bool_],
    names: Sequence[str],
    config: DirectionConfig,
) -> Direction | None:
    """Returns a direction with its name, "" for a factor that is unclear; None if it is faint."""
    at = list(names).index(wanted) if wanted else int(np.abs(effects).argmax())
    own, others = abs(float(effects[at])), np.abs(np.delete(effects, at))
    besides = float(np.abs(effects[unlike[at]]).sum() / max(1, unlike[at].sum()))
    is_clear = own >= max(config.clear, config.clearer * besides)
    if not is_clear and (wanted or own < config.faint):
        return None
    turned = shift if effects[at] > 0 else -shift
    return Direction(names[at] if is_clear else "", turned, own, float(others.mean()))


def _chosen(found: Sequence[Direction], config: DirectionConfig) -> list[Direction]:
    """Returns one direction a name, that with the least side effect for its effect, by effect.

    One that is nearly another is left out. Those without a name come last, numbered.
    """
    chosen: list[Direction] = []
    for one in sorted(found, key=lambda one: one.side_effect / one.effect):
        is_new = not one.name or one.name not in {other.name for other in chosen}
        if is_new and all(abs(_cosine(one, other)) < config.parallel for other in chosen):
            chosen.append(one)
    chosen.sort(key=lambda one: -one.effect)
    nameless = [one for one in chosen if not one.name]
    numbered = [
        dataclasses.replace(one, name=f"direction_{number}")
        for number, one in enumerate(nameless, start=1)
    ]
    return [*(one for one in chosen if one.name), *numbered]


def _cosine(a: Direction, b: Direction) -> float:
    lengths = np.linalg.norm(a.vector) * np.linalg.norm(b.vector)
    return float((a.vector * b.vector).sum() / max(lengths, _NOISE))


def write_directions(
    store: Store,
    folder: str,
    protocol: Protocol,
    *,
    generator: GeneratorNet,
    manifest: Manifest,
    network: Extractor,
    report: Report = lambda _payload: None,
    stop_signal: Callable[[], int] = lambda: 0,
) -> list[dict[str, Any]]:
    """Finds a generator's directions and stores them beside its weights; returns their facts.

    folder: the generator's own, under the home. With fewer than LEAST_FAKES a set there are none:
    such an evaluation is a trial. Those that lie there are kept if they are of these
    weights and were found the same way. The judge is that of the evaluation. Raises Stopped when a
    signal came; then nothing is stored.
    """
    if protocol.fakes < LEAST_FAKES:
        return []
    config = DirectionConfig(fakes=min(DirectionConfig.fakes, protocol.fakes))
    split = split_of(store, manifest, protocol, "eval", side_px=generator.spec.resolution_px)
    device = next(generator.parameters()).device
    plain = RowExtractor(network, device)
    with eval_progress(len(split), report=report, stop_signal=stop_signal) as progress:
        reals = real_feature_rows(split, plain, progress)
    judge = judge_of(store, manifest.digest, split, reals)
    digest = generator_digest(generator)
    facts = dataclasses.asdict(config) | {"judge": judge.digest}
    held = read_directions(store.url(folder), generator.spec, digest=digest)
    if held is None or held.config != facts:
        qualities = Qualities(manifest.labels, dataclasses.replace(plain, judge=judge))
        total = pictures_of(generator, config, qualities)
        typical = labels_for_generator(split.labels, manifest.labels, generator.spec.labels)
        with eval_progress(total, report=report, stop_signal=stop_signal) as progress:
            held = find_directions(generator, typical, qualities, progress, config)
        if held is None:
            return []
        store.write_bytes(f"{folder}/{DIRECTIONS}", held.to_bytes())
    return [one.facts() for one in held.found]
