"""NVIDIA's PyTorch generator by its published layout, and pickles as its training writes them.

Written from the paper and the names of the tensors, to hold the import against; slow and plain:
filters are applied as written, convolutions by one picture at a time.
"""

import math
import pickle
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

SOURCE = "class Generator: pass  # stands for the module's source, which a reader must not run"


class EasyDict(dict):
    """A dict with attributes, as theirs."""


EasyDict.__module__ = "dnnlib.util"


def _reconstruct_persistent_obj(meta: dict[str, Any]) -> Any:
    raise AssertionError("an import must not call this")


_reconstruct_persistent_obj.__module__ = "torch_utils.persistence"


class Persistent(nn.Module):
    """A module that pickles as a call of `_reconstruct_persistent_obj` with its own source."""

    class_name = ""
    module_src = SOURCE

    def __reduce__(self) -> tuple[Any, ...]:
        meta = {
            "type": "class",
            "version": 6,
            "module_src": self.module_src,
            "class_name": self.class_name or type(self).__name__,
            "state": self.__dict__,
        }
        return _reconstruct_persistent_obj, (meta,)


@contextmanager
def their_modules() -> Iterator[None]:
    """Lets pickle find the two names above where NVIDIA's files say they are, while it dumps."""
    made = {name: types.ModuleType(name) for name in
            ("dnnlib", "dnnlib.util", "torch_utils", "torch_utils.persistence")}  # fmt: skip
    vars(made["dnnlib.util"])["EasyDict"] = EasyDict
    vars(made["torch_utils.persistence"])["_reconstruct_persistent_obj"] = (
        _reconstruct_persistent_obj
    )
    sys.modules.update(made)
    try:
        yield
    finally:
        for name in made:
            del sys.modules[name]


def setup_filter() -> Tensor:
    f = torch.tensor([1.0, 3.0, 3.0, 1.0])
    f = torch.outer(f, f)
    return f / f.sum()


def upfirdn(x: Tensor, f: Tensor, up: int, padding: tuple[int, int], gain: float) -> Tensor:
    """Zeros between pixels, padding, a true convolution with f · gain; no downsampling."""
    n, c, h, w = x.shape
    spread = x.new_zeros(n, c, h * up, w * up)
    spread[:, :, ::up, ::up] = x
    spread = F.pad(spread, (*padding, *padding))
    return F.conv2d(spread, (f * gain).flip(0, 1).expand(c, 1, 4, 4), groups=c)


def resampled_conv(x: Tensor, w: Tensor, f: Tensor, up: int, padding: int, flip: bool) -> Tensor:
    """Upsamples by f, then convolves with w [O,I,k,k]; flip=True means correlation.

    Done the long way: the picture is upsampled first, where theirs fuses both into a transposed
    convolution; the sums are the same.
    """
    if not flip:
        w = w.flip(2, 3)
    if up == 1:
        return F.conv2d(x, w, padding=padding)
    # Padding for "same" output of the filter at twice the side, and of the kernel.
    before, after = padding + (4 + up - 1) // 2, padding + (4 - up) // 2
    x = upfirdn(x, f, up, (before, after), gain=up**2)
    return F.conv2d(x, w)


def normalize_2nd_moment(x: Tensor) -> Tensor:
    return x * (x.square().mean(dim=1, keepdim=True) + 1e-8).rsqrt()


def bias_act(x: Tensor, bias: Tensor, act: str, clamp: float | None = None) -> Tensor:
    x = x + bias.reshape(1, -1, *[1] * (x.ndim - 2))
    x = F.leaky_relu(x, 0.2) * math.sqrt(2) if act == "lrelu" else x
    return x if clamp is None else x.clamp(-clamp, clamp)


class FullyConnectedLayer(Persistent):
    def __init__(
        self, inputs: int, outputs: int, activation: str = "linear", lr: float = 1, bias: float = 0
    ) -> None:
        super().__init__()
        self.activation = activation
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / lr)
        self.bias = nn.Parameter(torch.full((outputs,), float(bias)) + 0.1 * torch.randn(outputs))
        self.weight_gain = lr / np.sqrt(inputs)  # a numpy number, as theirs
        self.bias_gain = lr

    def forward(self, x: Tensor) -> Tensor:
        x = x @ (self.weight * float(self.weight_gain)).t()
        return bias_act(x, self.bias * self.bias_gain, self.activation)


class MappingNetwork(Persistent):
    w_avg: Tensor

    def __init__(self, z_dim: int, c_dim: int, w_dim: int, layers: int, lr: float) -> None:
        super().__init__()
        self.z_dim, self.c_dim, self.w_dim, self.num_layers = z_dim, c_dim, w_dim, layers
        if c_dim:
            self.embed = FullyConnectedLayer(c_dim, w_dim)
        inputs = [z_dim + (w_dim if c_dim else 0)] + [w_dim] * (layers - 1)
        for at, count in enumerate(inputs):
            setattr(self, f"fc{at}", FullyConnectedLayer(count, w_dim, "lrelu", lr=lr))
        self.register_buffer("w_avg", 0.3 * torch.randn(w_dim))

    def forward(self, z: Tensor, c: Tensor, psi: float) -> Tensor:
        x = normalize_2nd_moment(z)
        if self.c_dim:
            x = torch.cat([x, normalize_2nd_moment(self.embed(c))], dim=1)
        for at in range(self.num_layers):
            x = getattr(self, f"fc{at}")(x)
        return self.w_avg.lerp(x, psi)


def modulated(x: Tensor, w: Tensor, styles: Tensor, demodulate: bool, **resample: Any) -> Tensor:
    pictures = []
    for one, style in zip(x, styles, strict=True):
        weight = w * style[None, :, None, None]
        if demodulate:
            weight = weight * (weight.square().sum(dim=(1, 2, 3), keepdim=True) + 1e-8).rsqrt()
        pictures.append(resampled_conv(one[None], weight, **resample))
    return torch.cat(pictures)


class SynthesisLayer(Persistent):
    noise_const: Tensor
    resample_filter: Tensor

    def __init__(self, inputs: int, outputs: int, w_dim: int, resolution: int, up: int = 1) -> None:
        super().__init__()
        self.resolution, self.up, self.activation = resolution, up, "lrelu"
        self.conv_clamp: float | None = None
        self.act_gain = np.sqrt(2)
        self.register_buffer("resample_filter", setup_filter())
        self.affine = FullyConnectedLayer(w_dim, inputs, bias=1)
        weight = torch.randn(outputs, inputs, 3, 3)
        self.weight = nn.Parameter(weight.to(memory_format=torch.channels_last))
        self.register_buffer("noise_const", torch.randn(resolution, resolution))
        self.noise_strength = nn.Parameter(0.3 * torch.randn([]))
        self.bias = nn.Parameter(0.2 * torch.randn(outputs))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        x = modulated(
            x, self.weight, self.affine(w), True,
            f=self.resample_filter, up=self.up, padding=1, flip=self.up == 1,
        )  # fmt: skip
        x = x + self.noise_const * self.noise_strength
        return bias_act(x, self.bias, "lrelu", self.conv_clamp)


class ToRGBLayer(Persistent):
    def __init__(self, inputs: int, w_dim: int) -> None:
        super().__init__()
        self.conv_clamp: float | None = None
        self.affine = FullyConnectedLayer(w_dim, inputs, bias=1)
        self.weight = nn.Parameter(torch.randn(3, inputs, 1, 1))
        self.bias = nn.Parameter(0.1 * torch.randn(3))
        self.weight_gain = 1 / np.sqrt(inputs)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        styles = self.affine(w) * float(self.weight_gain)
        x = modulated(x, self.weight, styles, False, f=setup_filter(), up=1, padding=0, flip=True)
        return bias_act(x, self.bias, "linear", self.conv_clamp)


class SynthesisBlock(Persistent):
    resample_filter: Tensor

    def __init__(self, inputs: int, outputs: int, w_dim: int, resolution: int) -> None:
        super().__init__()
        self.in_channels, self.architecture, self.use_fp16 = inputs, "skip", False
        self.register_buffer("resample_filter", setup_filter())
        if not inputs:
            self.const = nn.Parameter(torch.randn(outputs, resolution, resolution))
        else:
            self.conv0 = SynthesisLayer(inputs, outputs, w_dim, resolution, up=2)
        self.conv1 = SynthesisLayer(outputs, outputs, w_dim, resolution)
        self.torgb = ToRGBLayer(outputs, w_dim)


class SynthesisNetwork(Persistent):
    def __init__(self, w_dim: int, widths: list[int]) -> None:
        super().__init__()
        self.img_resolution, self.img_channels = 4 << (len(widths) - 1), 3
        self.block_resolutions = [4 << at for at in range(len(widths))]
        for side, before, count in zip(
            self.block_resolutions, [0, *widths[:-1]], widths, strict=True
        ):
            setattr(self, f"b{side}", SynthesisBlock(before, count, w_dim, side))

    def forward(self, w: Tensor) -> Tensor:
        x = self.get_submodule("b4").get_parameter("const").expand(len(w), -1, -1, -1)
        img = torch.zeros(len(w), 3, 2, 2)  # nothing yet, at half of 4 px
        for side in self.block_resolutions:
            block = getattr(self, f"b{side}")
            if side > 4:
                x = block.conv0(x, w)
            x = block.conv1(x, w)
            img = upfirdn(img, setup_filter(), 2, (2, 1), gain=4) + block.torgb(x, w)
        return img


class Generator(Persistent):
    """widths: channels at 4, 8, ... px."""

    def __init__(
        self, widths: list[int], *, z_dim: int, c_dim: int, w_dim: int, layers: int, lr: float
    ) -> None:
        super().__init__()
        self.z_dim, self.c_dim, self.w_dim = z_dim, c_dim, w_dim
        self._init_kwargs = {"synthesis_kwargs": EasyDict(channel_max=512)}
        self.synthesis = SynthesisNetwork(w_dim, widths)
        self.mapping = MappingNetwork(z_dim, c_dim, w_dim, layers, lr)

    @torch.no_grad()
    def forward(self, z: Tensor, c: Tensor, psi: float = 1.0) -> Tensor:
        img: Tensor = self.synthesis(self.mapping(z, c, psi))
        return img


class Discriminator(Persistent):
    def __init__(self) -> None:
        super().__init__()
        self.b4 = FullyConnectedLayer(4, 1)


def small(*, c_dim: int = 0, z_dim: int = 8, lr: float = 0.01, seed: int = 0) -> Generator:
    """Returns a generator of 16 px with 12, 12 and 6 channels: min(96 / side, 12)."""
    torch.manual_seed(seed)
    return Generator([12, 12, 6], z_dim=z_dim, c_dim=c_dim, w_dim=8, layers=2, lr=lr)


def clamped(clamp: float) -> Generator:
    """Returns the small generator with its activations clamped, as their training sets it."""
    generator = small()
    for module in generator.modules():
        if isinstance(module, SynthesisLayer | ToRGBLayer):
            module.conv_clamp = clamp
    return generator


def with_changes(path: str, **changes: Any) -> Generator:
    """Returns the small generator with attributes of one of its modules set, or None: deleted."""
    generator = small()
    part = generator.get_submodule(path)
    for name, value in changes.items():
        if value is None:
            delattr(part, name)
        else:
            setattr(part, name, value)
    return generator


def save(path: Path, **networks: Any) -> Path:
    """Writes a pickle as NVIDIA's training does: settings and the networks by name."""
    held = {"training_set_kwargs": {"use_labels": False, "resolution": 16}, **networks}
    with their_modules(), path.open("wb") as file:
        pickle.dump(held, file)
    return path
