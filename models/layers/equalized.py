"""Dense layers and convolutions whose weights are N(0,1) and are scaled when they are used.

Every weight then has about the same size, so Adam's step means the same to all layers.
Source: Karras et al. 2018, arXiv:1710.10196, section 4.1.
"""

import contextlib
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class EqualDense(nn.Module):
    """x [N,I] -> gain · (weight · lr_multiplier / √I · x + bias · lr_multiplier) [N,O].

    The gain is that of the activation which follows: a leaky relu of a scaled value is the scaled
    leaky relu, so the factor costs nothing here and a pass over the values there. lr_multiplier
    below 1 makes the layer learn that much slower; its weights start that much larger.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        bias: bool = True,
        bias_init: float = 0.0,
        lr_multiplier: float = 1.0,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / lr_multiplier)
        self.bias = nn.Parameter(torch.full((outputs,), bias_init)) if bias else None
        self.bias_scale = gain * lr_multiplier
        self.scale = self.bias_scale / math.sqrt(inputs)

    def forward(self, x: Tensor) -> Tensor:
        """Maps x [N,I] to [N,O]."""
        if self.bias is None:
            return F.linear(x, self.weight * self.scale)
        return torch.addmm(self.bias, x, self.weight.t(), beta=self.bias_scale, alpha=self.scale)


class EqualConv(nn.Module):
    """Convolution of x [N,I,H,W] by gain · weight / √(I·k²), plus gain · bias -> [N,O,H',W'].

    gain: as in `EqualDense`. Without stride the side stays; with stride 2 there is no padding.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int,
        *,
        stride: int = 1,
        bias: bool = True,
        gain: float = 1.0,
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        self.gain = gain
        self.scale = gain / math.sqrt(inputs * kernel**2)
        self.stride = stride
        self.padding = kernel // 2 if stride == 1 else 0

    def forward(self, x: Tensor) -> Tensor:
        """Maps x [N,I,H,W] to [N,O,H',W']."""
        bias = None if self.bias is None else self.bias * self.gain
        return F.conv2d(x, self.weight * self.scale, bias, stride=self.stride, padding=self.padding)


class Dense(nn.Linear):
    """torch's dense layer; with no inputs or no outputs it starts at a bias of 0, unwarned."""

    def reset_parameters(self) -> None:
        """Draws the weights as torch does."""
        if self.weight.numel():
            super().reset_parameters()
        elif self.bias is not None:
            nn.init.zeros_(self.bias)


def full_precision(x: Tensor) -> contextlib.AbstractContextManager[None]:
    """Returns a context without autocast on x's device.

    Where no autocast is on, it is an empty one: an exported program then holds no trace of it.
    """
    if torch.is_autocast_enabled(x.device.type):
        return torch.autocast(x.device.type, enabled=False)
    return contextlib.nullcontext()
