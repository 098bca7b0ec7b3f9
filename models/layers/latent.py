"""Truncation of the families without W: latents are pulled towards the mean of their draw."""

import torch
from torch import Tensor

from models.spec import GeneratorSpec


def pulled(z: Tensor, psi: float | Tensor, spec: GeneratorSpec) -> Tensor:
    """Pulls z [N,Z] towards its mean: psi 1 leaves it, 0 is the mean, for every row the same.

    N(0,1) has its mean at 0, so there z is scaled; U(0,1) has it at 0.5 of `spec.z_std`, and 0
    would be a corner that hardly any latent comes near.
    """
    if spec.z_dist == "normal":
        return z * psi
    if not isinstance(psi, Tensor):  # 1 - psi is to be rounded as in an exported program
        psi = torch.tensor(psi, dtype=torch.float32)
    return z * psi + 0.5 * spec.z_std * (1 - psi)
