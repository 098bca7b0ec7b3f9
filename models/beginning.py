"""A training before its first step: the machine set up, networks and optimisers made."""

import copy
from typing import Any

import torch

from models.checkpoints import TrainState
from models.config import TrainConfig
from models.families import family_of
from models.networks import GeneratorNet

SLOW_PACE = 0.01  # of the step of a generator's slow parameters


def set_up(config: TrainConfig, device: torch.device) -> None:
    """Sets threads, kernels, precision of products and the seed, as every training has them."""
    if config.threads:
        torch.set_num_threads(config.threads)
    torch.backends.cudnn.benchmark = False  # it may choose other kernels on another day
    torch.backends.cudnn.deterministic = True
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
        torch.cuda.reset_peak_memory_stats(device)
    torch.manual_seed(config.seed)


def uses_bf16(config: TrainConfig, device: torch.device) -> bool:
    """Tells whether the networks run under autocast to bfloat16."""
    if config.precision == "auto":
        return device.type == "cuda" and torch.cuda.is_bf16_supported()
    return config.precision == "bf16"


def new_state(
    config: TrainConfig, label_names: tuple[str, ...], device: torch.device
) -> TrainState:
    """Returns networks, optimisers and sources as they are before the first step."""
    family = family_of(config.family)
    G = family.generator(family.spec(label_names, config.g_size()))
    D = family.discriminator(family.spec(label_names, config.d_size()))
    # NHWC is what the tensor cores of a GPU want; on a CPU it is slower.
    if device.type == "cuda":
        for network in (G, D):
            network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def adam(groups: list[dict[str, Any]]) -> torch.optim.Adam:
        betas = (config.beta1, config.beta2)
        return torch.optim.Adam(groups, betas=betas, eps=config.adam_eps, fused=True)

    return TrainState(
        G=G,
        D=D,
        ema=copy.deepcopy(G).eval().requires_grad_(False),
        opt_g=adam(_paced(G, config.lr_g)),
        opt_d=adam([{"params": list(D.parameters()), "lr": config.lr_d}]),
        rng=torch.Generator().manual_seed(config.seed),
        device_rng=torch.Generator(device).manual_seed(config.seed),
        aug_p=torch.tensor(config.aug_p, device=device),
        real_sign=torch.zeros((), device=device),
        path_mean=torch.zeros((), device=device),
    )


def _paced(G: GeneratorNet, lr: float) -> list[dict[str, Any]]:
    """Returns G's parameters with their steps: those that it names slow take a hundredth."""
    named = list(G.named_parameters())
    slow = [weight for name, weight in named if name.endswith(G.slow)]
    others = [weight for name, weight in named if not name.endswith(G.slow)]
    groups = [{"params": others, "lr": lr}]
    return [*groups, {"params": slow, "lr": lr * SLOW_PACE}] if slow else groups
