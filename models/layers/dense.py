"""A dense layer that may have nothing to read or nothing to say, as where there are no labels."""

from torch import nn


class Dense(nn.Linear):
    """torch's dense layer; with no inputs or no outputs it starts at a bias of 0, unwarned."""

    def reset_parameters(self) -> None:
        """Draws the weights as torch does."""
        if self.weight.numel():
            super().reset_parameters()
        elif self.bias is not None:
            nn.init.zeros_(self.bias)
