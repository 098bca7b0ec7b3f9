"""The judge of labels: a network that no training ever saw, fitted to the `eval` split alone.

It is a logistic head a label on what the extractor finds, and on the colours of a 24 px thumbnail
(and how they differ from the mirror image's), which the extractor, made to tell things by their
shapes, has mostly forgotten. Average precision over the training pictures, which the judge never
saw, on one CPU thread; chance gives 0.12 and 0.18:

    eval rows     network of models/tagger, 64 px     head on features     head on both (this one)
    782, real     0.54 (13 s), 0.25 (4 s)             0.36 (0.6 s)         0.52 (1.6 s)
    179, drawn    0.65 (13 s), 0.36 (4 s)             0.59 (0.5 s)         0.70 (0.8 s)

So a tenth of the work judges as well as that network, better where pictures are few, and a picture
costs it nothing beside the features, which the distance needs anyway. The fit is deterministic.
"""

import dataclasses

import cv2
import numpy as np
import numpy.typing as npt
import safetensors.numpy
import torch
import torch.nn.functional as F

from dataset.store import Store, digest_of
from models.io.safe_io import parse_tensors

Pictures = npt.NDArray[np.uint8]  # [N,H,W,3], RGB
Array = npt.NDArray[np.float64]
Rows32 = npt.NDArray[np.float32]

_MIN_SCALE = 1e-6  # of a feature that is the same on all pictures
_RAREST = 1e-3


@dataclasses.dataclass(frozen=True)
class JudgeConfig:
    """All that decides what the judge learns, besides its pictures."""

    kind: str = "logistic head on the extractor's features and a Lab thumbnail"
    thumbnail_px: int = 24
    penalty: float = 75.0  # times half the squared weights, beside the summed cross-entropy
    iterations: int = 100  # of L-BFGS, at most
    version: int = 1

    @property
    def digest(self) -> str:
        """The sha256 of the settings."""
        return digest_of(dataclasses.asdict(self))


@dataclasses.dataclass(frozen=True, eq=False)
class Judge:
    """A fitted judge: mean and scale of its inputs [I], weights [I,L] and bias [L]."""

    mean: Array
    scale: Array
    weights: Array
    bias: Array

    def logits(self, features: npt.NDArray[np.floating], thumbnails: Rows32) -> Rows32:
        """Judges features [n,F] and thumbnails [n,T] -> logits [n,L], float32."""
        inputs = (_inputs(features, thumbnails) - self.mean) / self.scale
        return (inputs @ self.weights + self.bias).astype(np.float32)

    def tensors(self) -> dict[str, Array]:
        """Returns what it consists of, by name."""
        return dataclasses.asdict(self)

    @property
    def digest(self) -> str:
        """The sha256 over all of its numbers."""
        parts = {name: held.tobytes().hex() for name, held in self.tensors().items()}
        return digest_of(parts)


def thumbnails(pictures: Pictures, side_px: int = JudgeConfig.thumbnail_px) -> Rows32:
    """Returns the Lab colours [n, 3·side²] of pictures [n,H,W,3], reduced by area and folded.

    The first half of the numbers is the mean of the picture's halves, one of them mirrored, the
    second half how far they are apart: labels do not depend on the side that a face looks to.
    """
    lab = np.zeros((len(pictures), side_px, side_px, 3), dtype=np.float32)
    for place, picture in enumerate(pictures):
        plain = np.ascontiguousarray(picture)
        small = cv2.resize(plain, (side_px, side_px), interpolation=cv2.INTER_AREA)
        lab[place] = cv2.cvtColor(small, cv2.COLOR_RGB2LAB)
    left, right = lab[:, :, : side_px // 2], lab[:, :, ::-1][:, :, : side_px // 2]
    folded = np.stack([(left + right) / 2, np.abs(left - right)], axis=1)
    return folded.reshape(len(pictures), -1)


def judge_at(
    store: Store,
    path: str,
    *,
    features: Rows32,
    thumbs: Rows32,
    labels: npt.NDArray[np.generic],
    config: JudgeConfig,
) -> Judge:
    """Returns the judge that lies at `path`, after fitting it on the first call."""
    if store.exists(path):
        held = parse_tensors(store.read_bytes(path), where=store.url(path))
        return Judge(**{name: tensor.numpy() for name, tensor in held.items()})
    made = fit_judge(features, thumbs, labels, config=config)
    parts = {name: np.ascontiguousarray(held) for name, held in made.tensors().items()}
    store.write_bytes(path, safetensors.numpy.save(parts))
    return made


def fit_judge(
    features: Rows32, thumbs: Rows32, labels: npt.NDArray[np.generic], *, config: JudgeConfig
) -> Judge:
    """Fits a judge to features [N,F] and thumbnails [N,T] of reals with labels [N,L] of 0 and 1.

    Deterministic: the loss is convex and the weights begin at zero. A label that no picture has is
    judged unlikely everywhere.
    """
    inputs = _inputs(features, thumbs)
    mean, scale = inputs.mean(axis=0), inputs.std(axis=0).clip(min=_MIN_SCALE)
    x = torch.from_numpy((inputs - mean) / scale)
    wanted = torch.from_numpy(np.asarray(labels, dtype=np.float64))
    weights = torch.zeros(x.shape[1], wanted.shape[1], dtype=torch.float64, requires_grad=True)
    bias = torch.logit(wanted.mean(dim=0).clamp(_RAREST, 1 - _RAREST)).requires_grad_(True)
    optimiser = torch.optim.LBFGS(
        [weights, bias], max_iter=config.iterations, line_search_fn="strong_wolfe"
    )

    def loss() -> torch.Tensor:
        optimiser.zero_grad()
        fit = F.binary_cross_entropy_with_logits(x @ weights + bias, wanted, reduction="sum")
        found = fit + config.penalty / 2 * weights.square().sum()
        found.backward()  # type: ignore[no-untyped-call]
        return found

    if wanted.shape[1]:
        optimiser.step(loss)  # type: ignore[no-untyped-call]
    return Judge(mean, scale, weights.detach().numpy(), bias.detach().numpy())


def _inputs(features: npt.NDArray[np.floating], thumbs: Rows32) -> Array:
    return np.concatenate([features, thumbs], axis=1, dtype=np.float64)
