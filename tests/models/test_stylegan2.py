import dataclasses

import pytest
import torch
from torch import Tensor, nn

from dataset.errors import UsageError
from models.families import family_of
from models.families.base import Noise
from models.training.losses import path_lengths, r1_penalty
from tests.models.small_generators import (
    W_FAMILIES,
    some_labels,
    w_networks,
)


def test_noise_goes_in_at_every_convolution() -> None:
    G, _ = w_networks("stylegan2")
    assert G.noise_sides() == [4, 8, 8, 16, 16, 32, 32]
    assert len(G.noise_sides()) == G.spec.w_layers - 1


def test_labels_change_faces_and_judgements() -> None:
    G, D = w_networks("stylegan2")
    z, rows = torch.randn(1, 12).repeat(2, 1), some_labels(2)
    images = G(z, rows)
    assert (images[0] - images[1]).abs().max().item() > 0.01
    realness, _ = D(images[:1].repeat(2, 1, 1, 1), rows)
    assert abs(realness[0].item() - realness[1].item()) > 1e-4


def test_size_of_z_means_nothing() -> None:
    G, _ = w_networks("stylegan2")
    z, rows = torch.randn(2, 12), some_labels(2)
    torch.testing.assert_close(G(z, rows), G(3 * z, rows), rtol=1e-4, atol=1e-4)


# Truncation


def test_psi_zero_gives_one_face_a_label_row_and_others_for_other_labels() -> None:
    G, _ = w_networks("stylegan2")
    z = torch.randn(6, 12)
    images = G(z, some_labels(6), psi=0.0)  # rows 0 and 3, 1 and 4, 2 and 5 ask the same
    torch.testing.assert_close(images[:3], images[3:], rtol=1e-5, atol=1e-5)
    assert (images[0] - images[1]).abs().max().item() > 0.01


def test_psi_zero_is_near_the_mean_w_of_many_latents() -> None:
    G, _ = w_networks("stylegan2")
    rows = some_labels(1)
    many = G.map(torch.randn(20_000, 12), rows.expand(20_000, -1))[:, 0]
    (centre,) = G.truncated(G.map(torch.randn(1, 12), rows), rows, 0.0)[:, 0]
    # Closer than chance leaves the mean of 64 latents that are not pairs of opposites.
    error = (centre - many.mean(dim=0)).square().mean().sqrt()
    assert error.item() < many.std(dim=0).mean().item() / 64**0.5


def test_psi_one_leaves_w_and_half_goes_half_the_way() -> None:
    G, _ = w_networks("stylegan2")
    rows = some_labels(3)
    w = G.map(torch.randn(3, 12), rows)
    assert torch.equal(G.truncated(w, rows, 1.0), w)
    assert torch.equal(G.truncated(w, rows, torch.tensor(1.0)), w)
    centre, half = G.truncated(w, rows, 0.0), G.truncated(w, rows, 0.5)
    torch.testing.assert_close(half, (w + centre) / 2)


def test_without_labels_psi_pulls_to_the_tracked_mean() -> None:
    G, _ = w_networks("stylegan2", labels=0)
    rows = torch.zeros(2, 0)
    w = G.map(torch.randn(2, 12), rows)
    G.track(torch.full((12,), 100.0))
    torch.testing.assert_close(G.w_avg, torch.full((12,), 0.2))
    torch.testing.assert_close(G.truncated(w, rows, 0.0), torch.full_like(w, 0.2))
    torch.testing.assert_close(G.truncated(w, rows, torch.tensor(0.0)), torch.full_like(w, 0.2))


@pytest.mark.parametrize("psi", [0.5, torch.tensor(0.5)])
def test_with_labels_psi_goes_to_the_tracked_mean_if_that_is_the_centre(
    psi: float | Tensor,
) -> None:
    G, _ = w_networks("stylegan2")
    rows = some_labels(3)
    w = G.map(torch.randn(3, 12), rows)
    G.track(torch.full((12,), 100.0))
    assert not torch.allclose(G.truncated(w, rows, psi), (w + 0.2) / 2)
    G.truncation_centre = "global"
    torch.testing.assert_close(G.truncated(w, rows, psi), (w + 0.2) / 2)


def test_a_clamp_bounds_each_layer_and_none_changes_nothing() -> None:
    G, _ = w_networks("stylegan2")
    bounded = family_of("stylegan2").generator(dataclasses.replace(G.spec, conv_clamp=0.25))
    bounded.load_state_dict(G.state_dict())
    bounds: list[float] = []
    for name in ("convs", "rgbs"):
        for layer in bounded.get_submodule(name).children():
            layer.register_forward_hook(lambda _m, _i, out: bounds.append(out.abs().max().item()))
    z, rows = torch.randn(2, 12), some_labels(2)
    clamped = bounded.eval()(z, rows)
    assert len(bounds) == 11
    assert max(bounds) == 0.25
    assert (clamped - G(z, rows)).abs().max().item() > 0.01


def test_a_given_w_is_drawn_as_it_is() -> None:
    G, _ = w_networks("stylegan2")
    z, rows = torch.randn(2, 12), some_labels(2)
    w = G.map(z, rows)
    assert torch.equal(G(torch.zeros(2, 12), 1 - rows, psi=0.3, w=w), G(z, rows))


# Noise


def test_maps_of_zeros_are_no_noise_and_the_generators_own_are_const() -> None:
    G, _ = w_networks("stylegan2")
    z, rows = torch.randn(2, 12), some_labels(2)
    zeros = [torch.zeros(2, 1, side, side) for side in G.noise_sides()]
    torch.testing.assert_close(
        G(z, rows, noise=zeros), G(z, rows, noise="none"), rtol=1e-5, atol=1e-5
    )
    own = [value for name, value in G.state_dict().items() if name.endswith("noise_const")]
    assert torch.equal(G(z, rows, noise=own), G(z, rows))


def test_random_noise_is_new_each_time_and_follows_torchs_seed() -> None:
    G, _ = w_networks("stylegan2")
    z, rows = torch.randn(1, 12), some_labels(1)
    torch.manual_seed(7)
    first, second = G(z, rows, noise="random"), G(z, rows, noise="random")
    torch.manual_seed(7)
    assert torch.equal(G(z, rows, noise="random"), first)
    assert not torch.equal(first, second)


@pytest.mark.parametrize("noise", ["constant", [torch.zeros(1, 1, 4, 4)]])
def test_noise_that_does_not_fit_is_refused_with_what_was_wanted(noise: Noise) -> None:
    G, _ = w_networks("stylegan2")
    with pytest.raises(UsageError, match=r"const, none, random or maps of \[4, 8, 8, 16"):
        G(torch.randn(1, 12), some_labels(1), noise=noise)


# What a picture depends on


def test_late_w_change_the_fine_part_only() -> None:
    G, _ = w_networks("stylegan2")
    rows = some_labels(1)
    one, two = (G.map(torch.randn(1, 12), rows) for _ in range(2))
    late, early = one.clone(), one.clone()
    late[:, 4:], early[:, :4] = two[:, 4:], two[:, :4]  # 16 px and on; 4 and 8 px
    images = [G(one[:, 0], rows, w=w, noise="none") for w in (one, late, early)]
    seen: list[Tensor] = []
    hook = G.get_submodule("convs.2").register_forward_hook(lambda _net, _in, out: seen.append(out))
    for w in (one, late, early):
        G(one[:, 0], rows, w=w, noise="none")
    hook.remove()
    assert torch.equal(seen[0], seen[1])  # the features at 8 px
    assert not torch.equal(seen[0], seen[2])
    assert not torch.equal(images[0], images[1])


@pytest.mark.parametrize("psi", [1.0, 0.5])
def test_a_picture_does_not_depend_on_its_neighbours(psi: float) -> None:
    G, _ = w_networks("stylegan2")
    z, rows = torch.randn(6, 12), some_labels(6)
    others = torch.cat([z[:1], torch.randn(5, 12)]), torch.cat([rows[:1], 1 - rows[1:]])
    torch.testing.assert_close(
        G(*others, psi=psi)[:1], G(z, rows, psi=psi)[:1], rtol=1e-5, atol=1e-5
    )


@pytest.mark.parametrize("family", W_FAMILIES)
def test_eight_pictures_are_judged_as_two_times_four(family: str) -> None:
    _, D = w_networks(family)
    x, rows = torch.randn(8, 3, 32, 32), some_labels(8)
    halves = [D(x[at : at + 4], rows[at : at + 4]) for at in (0, 4)]
    whole = D(x, rows)
    for part in (0, 1):
        joined = torch.cat([half[part] for half in halves])
        torch.testing.assert_close(whole[part], joined, rtol=1e-5, atol=1e-5)


# Derivatives, export, precision


def test_gradient_penalty_and_its_gradient_agree_with_autograd() -> None:
    _, D = w_networks("stylegan2")
    x, rows = torch.randn(4, 3, 32, 32), some_labels(4)
    ours = r1_penalty(D, x, rows)
    eager = x.clone().requires_grad_(True)
    (slope,) = torch.autograd.grad(D(eager, rows)[0].sum(), eager, create_graph=True)
    theirs = slope.square().sum(dim=(1, 2, 3))
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
    _same_gradients(D, ours.mean(), theirs.mean())


def test_path_lengths_and_their_gradient_agree_with_autograd() -> None:
    G, _ = w_networks("stylegan2")
    rows = some_labels(3)
    w = G.map(torch.randn(3, 12), rows).detach()
    direction = torch.randn(3, 3, 32, 32)
    noise = [torch.randn(3, 1, side, side) for side in G.noise_sides()]
    ours = path_lengths(G, w, rows, direction=direction, noise=noise)
    eager = w.clone().requires_grad_(True)
    moved = (G(w[:, 0], rows, w=eager, noise=noise) * direction / 32).sum()
    (slope,) = torch.autograd.grad(moved, eager, create_graph=True)
    theirs = slope.square().sum(dim=2).mean(dim=1).sqrt()
    torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
    _same_gradients(G, ours.mean(), theirs.mean())


def _same_gradients(network: nn.Module, ours: Tensor, theirs: Tensor) -> None:
    weights = list(network.parameters())
    mine, eager = (
        torch.autograd.grad(value, weights, allow_unused=True, materialize_grads=True)
        for value in (ours, theirs)
    )
    scale = max(one.abs().max().item() for one in eager)
    assert scale > 0
    for one, other in zip(mine, eager, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5 * scale)


@pytest.mark.parametrize("family", W_FAMILIES)
def test_bfloat16_stays_finite_and_near_float32(family: str) -> None:
    G, D = w_networks(family)
    z, rows = torch.randn(4, 12), some_labels(4)
    images = G(z, rows)
    with torch.autocast("cpu", torch.bfloat16):
        w = G.map(z, rows)
        rounded = G(z, rows)
        judged, _ = D(images, rows)
        penalty = r1_penalty(D, images, rows)
    assert w.dtype == rounded.dtype == judged.dtype == penalty.dtype == torch.float32
    torch.testing.assert_close(w, G.map(z, rows))
    assert (rounded - images).abs().mean().item() < 0.03 * images.std().item()
    realness, _ = D(images, rows)
    assert (judged - realness).abs().max().item() < 0.1 * (1 + realness.abs().max().item())
    assert torch.isfinite(penalty).all()


def test_state_holds_nothing_that_can_be_made_again() -> None:
    G, _ = w_networks("stylegan2")
    names = set(G.state_dict()) - {name for name, _ in G.named_parameters()}
    assert names == {"w_avg", *(f"convs.{at}.noise_const" for at in range(7))}
