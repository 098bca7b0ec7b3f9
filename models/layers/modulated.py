"""Convolutions that each picture steers by its own w, without a weight tensor for each picture.

StyleGAN2 scales the weights of a convolution for each picture and so needs a grouped convolution
with as many groups as pictures. Scaling the inputs by the style, and the outputs by what the scaled
weights' norms would have been, is the same sum with one ordinary convolution.
Source: Karras et al. 2020, arXiv:1912.04958, section 2.2 and appendix B.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from models.layers.equalized import EqualDense, full_precision
from models.layers.resample import Blur

SLOPE = 0.2  # of the leaky relu
GAIN = math.sqrt(2)  # of the leaky relu, so that it keeps the size of what goes through
EPSILON = 1e-8


class StyledConv(nn.Module):
    """3x3 convolution styled and demodulated by w, noise, bias and leaky relu; may double the side.

    weight [O,I,3,3], bias [O], affine [I,W]+[I] from w to the inputs' scales, noise_strength [],
    noise_const [1,1,S,S] the map that is added where no other is given. A clamp above 0 bounds
    what comes out to ± itself.
    """

    noise_const: Tensor

    def __init__(
        self, inputs: int, outputs: int, *, w_dim: int, side: int, up: bool, clamp: float = 0.0
    ) -> None:
        super().__init__()
        self.side = side
        self.up = up
        self.clamp = clamp
        self.scale = 1 / math.sqrt(inputs * 9)
        self.affine = EqualDense(w_dim, inputs, bias_init=1.0)
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3))
        self.bias = nn.Parameter(torch.zeros(outputs))
        self.noise_strength = nn.Parameter(torch.zeros(()))
        self.register_buffer("noise_const", torch.randn(1, 1, side, side))
        self.blur = Blur(1, gain=4.0) if up else None

    def forward(self, x: Tensor, w: Tensor, noise: Tensor | None) -> Tensor:
        """Maps x [N,I,H,W], w [N,W], noise [N or 1,1,S,S] or None to [N,O,S,S]."""
        style, demodulation = self._factors(w)
        y = self._convolved(x * style.to(x.dtype)[:, :, None, None])
        # The activation's gain rides on the small factors, which spares a pass over the features.
        demodulation = (GAIN * demodulation).to(y.dtype)[:, :, None, None]
        bias = (GAIN * self.bias).to(y.dtype)[:, None, None]
        if noise is None:
            y = torch.addcmul(bias, y, demodulation)
        else:
            added = (GAIN * self.noise_strength * noise).to(y.dtype)
            y = torch.addcmul(added, y, demodulation) + bias
        return _clamped(F.leaky_relu(y, SLOPE), self.clamp)

    def _factors(self, w: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the scales of the inputs [N,I] and of the outputs [N,O] for w [N,W], float32."""
        with full_precision(w):
            style = self.affine(w.float()) * self.scale
            energy = self.weight.float().square().sum(dim=(2, 3))  # [O,I]
            demodulation = (F.linear(style.square(), energy) + EPSILON).rsqrt()
        return style, demodulation

    def _convolved(self, x: Tensor) -> Tensor:
        if self.blur is None:
            return F.conv2d(x, self.weight, padding=1)
        # Zeros between the pixels, then a true convolution, which turns the kernel round.
        x = F.conv_transpose2d(x, self.weight.transpose(0, 1), stride=2)  # [N,O,2H+1,2W+1]
        smoothed: Tensor = self.blur(x)
        return smoothed


class ToRGB(nn.Module):
    """1x1 convolution styled by w, without demodulation, to three channels, and a bias.

    weight [3,I,1,1], bias [3], affine [I,W]+[I]; clamp as in `StyledConv`. Three channels are few:
    here the weights are scaled for each picture, and one batched product spares a pass over the
    features.
    """

    def __init__(self, inputs: int, *, w_dim: int, clamp: float = 0.0) -> None:
        super().__init__()
        self.clamp = clamp
        self.scale = 1 / math.sqrt(inputs)
        self.affine = EqualDense(w_dim, inputs, bias_init=1.0)
        self.weight = nn.Parameter(torch.randn(3, inputs, 1, 1))
        self.bias = nn.Parameter(torch.zeros(3))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """Maps features x [N,I,H,W] and w [N,W] to colours [N,3,H,W], float32."""
        with full_precision(w):
            style = self.affine(w.float()) * self.scale  # [N,I]
            weights = style[:, None] * self.weight.flatten(1).float()  # [N,3,I]
        colours = torch.bmm(weights.to(x.dtype), x.flatten(2)).float()  # [N,3,H·W]
        colours = colours.view(-1, 3, *x.shape[2:]) + self.bias[:, None, None]
        return _clamped(colours, self.clamp)


def _clamped(x: Tensor, clamp: float) -> Tensor:
    return x.clamp(-clamp, clamp) if clamp else x
