"""What every family owes to the one interface, at a small size and with 0, 1 and 4 labels."""

import copy

import pytest
import torch
from torch import Tensor

from dataset.errors import TrainingError, UsageError
from models.families import FAMILIES, family_of
from models.families.base import (
    DiscriminatorNet,
    GeneratorNet,
    GeneratorSpec,
    NetworkSize,
    truncate_z,
)
from models.registry.program import _Program
from models.training.losses import label_loss, ns_d, ns_g, r1_penalty, slope_penalty
from tests.models.small_generators import label_names, parameters

LABELS = label_names(4)
EVERY = pytest.mark.parametrize("name", FAMILIES)
SOME_LABELS = pytest.mark.parametrize("count", [0, 1, 4])
CONVOLUTIONAL = pytest.mark.parametrize("name", ["dcgan64", "dcgan96", "acgan64", "srresnet"])


def small(name: str, count: int = 4) -> tuple[GeneratorNet, DiscriminatorNet]:
    """Builds G and D of a family as small as they come."""
    torch.manual_seed(0)
    family = family_of(name)
    size = NetworkSize(
        family.resolutions_px[0],
        width=0.05,
        blocks=2,
        channel_base=512,
        channel_max=16,
        w_dim=16,
        mapping_layers=2,
    )
    spec = family.spec(LABELS[:count], size)
    return family.generator(spec), family.discriminator(spec)


def latents(spec: GeneratorSpec, rows: int) -> Tensor:
    draw = torch.randn if spec.z_dist == "normal" else torch.rand
    return draw(rows, spec.z_dim) * spec.z_std


def rows_of_labels(rows: int, count: int) -> Tensor:
    return (torch.arange(rows)[:, None] % 4 == torch.arange(count)).float()


@SOME_LABELS
@EVERY
def test_every_family_keeps_the_interface(name: str, count: int) -> None:
    G, D = small(name, count)
    spec, side = G.spec, G.spec.resolution_px
    labels = rows_of_labels(4, count)
    with torch.no_grad():
        images = G(latents(spec, 4), labels)
        assert images.shape == (4, 3, side, side)
        adversarial, auxiliary = D(images.clamp(-1, 1), labels)
        w = G.map(latents(spec, 4), labels)
    assert images.isfinite().all()
    judges = (5,) if FAMILIES[name].frozen_features else ()
    assert adversarial.shape == (4, *judges)
    assert auxiliary.shape == (4, 0 if name == "stylegan2" else count)
    assert adversarial.isfinite().all()
    assert (w is None) is not spec.can_w
    if w is not None:
        assert w.shape == (4, spec.w_layers, spec.w_dim)
    assert bool(G.noise_sides()) is spec.can_noise
    assert (spec.family, spec.labels) == (name, LABELS[:count])
    assert GeneratorSpec.from_json(spec.to_json(), where="spec.json") == spec


def test_a_spec_names_the_networks_whose_features_its_training_saw() -> None:
    old = family_of("dcgan64").spec(LABELS, NetworkSize(64)).to_json()
    assert "trained_on_features" not in old  # as in older files, whose digests stand
    assert GeneratorSpec.from_json(old, where="spec.json").trained_on_features == ()
    new = old | {"trained_on_features": ["efficientnet_lite0"]}
    spec = GeneratorSpec.from_json(new, where="spec.json")
    assert spec.trained_on_features == ("efficientnet_lite0",)
    assert spec.to_json() == new
    for wrong in ("efficientnet_lite0", [3], ["a", "a"], ["a"] * 17):
        with pytest.raises(TrainingError, match="trained_on_features"):
            GeneratorSpec.from_json(old | {"trained_on_features": wrong}, where="spec.json")


# Parameters of G without labels, of a W family's mapping of labels, and of each label; of D alike.
COUNTS = [
    ("dcgan64", NetworkSize(64), (2_767_171, 0, 1_856), (1_031_553, 2_561)),
    ("dcgan96", NetworkSize(96), (4_175_747, 0, 8_064), (2_793_410, 18_945)),
    ("acgan64", NetworkSize(64), (3_576_707, 0, 8_192), (2_764_737, 8_193)),
    ("srresnet", NetworkSize(64, blocks=3), (2_666_947, 0, 16_384), (19_948_865, 129)),
    ("srresnet", NetworkSize(128, blocks=3), (2_814_531, 0, 16_384), (20_017_121, 129)),
    ("stylegan2", NetworkSize(128), (24_525_213, 262_656, 512), (23_882_369, 512)),
    (
        "omokage",
        NetworkSize(128, channel_base=8192),
        (41_462_797, 262_656, 512),
        (58_288_261, 10_369),
    ),
    (
        "omokage",
        NetworkSize(96, channel_base=768, channel_max=128, w_dim=128, mapping_layers=2),
        (1_401_995, 16_512, 128),
        (630_901, 369),
    ),
]


@pytest.mark.parametrize("count", [0, 1, 23])
@pytest.mark.parametrize(("name", "size", "of_g", "of_d"), COUNTS)
def test_parameter_counts_are_those_of_the_docstring(
    count: int, name: str, size: NetworkSize, *, of_g: tuple[int, int, int], of_d: tuple[int, int]
) -> None:
    family = family_of(name)
    spec = family.spec(label_names(count), size)
    with torch.device("meta"):  # counts need no weights
        G, D = family.generator(spec), family.discriminator(spec)
    assert parameters(G) == of_g[0] + of_g[1] * (count > 0) + of_g[2] * count
    assert parameters(D) == of_d[0] + of_d[1] * count


@CONVOLUTIONAL
def test_pictures_end_in_tanh(name: str) -> None:
    G, _ = small(name)
    with torch.no_grad():
        images = G(1000 * latents(G.spec, 4), rows_of_labels(4, 4))
    assert images.abs().max() <= 1


@EVERY
def test_psi_zero_gives_one_face_whatever_the_latent(name: str) -> None:
    G, _ = small(name)
    G.eval()
    with torch.no_grad():
        one, two = G(latents(G.spec, 2), torch.zeros(2, 4), psi=0.0, noise="none")
        other, another = G(latents(G.spec, 2), torch.zeros(2, 4), psi=1.0, noise="none")
    torch.testing.assert_close(one, two)
    assert not torch.allclose(other, another)


def test_psi_pulls_uniform_latents_to_their_mean_and_normal_ones_to_zero() -> None:
    z = torch.tensor([[0.0, 1.0]])
    uniform, normal = small("dcgan96")[0].spec, small("acgan64")[0].spec
    assert truncate_z(z, 0.5, uniform).tolist() == [[0.25, 0.75]]
    assert truncate_z(z, 0.5, normal).tolist() == [[0.0, 0.5]]
    assert torch.equal(truncate_z(z, 1.0, uniform), z)


@EVERY
def test_labels_change_the_picture(name: str) -> None:
    G, _ = small(name)
    G.eval()
    z = latents(G.spec, 1).repeat(2, 1)
    with torch.no_grad():
        without, with_all = G(z, torch.stack([torch.zeros(4), torch.ones(4)]), noise="none")
    assert not torch.allclose(without, with_all, atol=1e-6)


@SOME_LABELS
@EVERY
def test_penalties_are_finite_and_reach_the_weights_of_d(name: str, count: int) -> None:
    G, D = small(name, count)
    side = G.spec.resolution_px
    images = torch.rand(4, 3, side, side) * 2 - 1
    labels = rows_of_labels(4, count)
    for penalty in (r1_penalty, slope_penalty):
        D.zero_grad()
        each = penalty(D, images, labels)
        assert each.shape == (4,)
        assert (each > 0).all()
        each.mean().backward()  # type: ignore[no-untyped-call]
        assert all(p.grad.isfinite().all() for p in D.parameters() if p.grad is not None)
        assert any(p.grad.abs().max() > 0 for p in D.parameters() if p.grad is not None)


@SOME_LABELS
@EVERY
def test_weights_are_finite_and_moved_after_three_steps(name: str, count: int) -> None:
    G, D = small(name, count)
    before = copy.deepcopy(G)
    spec, side = G.spec, G.spec.resolution_px
    adam_g, adam_d = (torch.optim.Adam(net.parameters(), 2e-4) for net in (G, D))
    reals, labels = torch.rand(4, 3, side, side) * 2 - 1, rows_of_labels(4, count)

    def optimizer_step(optimiser: torch.optim.Optimizer, loss: Tensor) -> None:
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()

    for _ in range(3):
        fakes = G(latents(spec, 4), labels)
        real, classes = D(reals, labels)
        fake, _ = D(fakes.detach(), labels)
        loss = ns_d(real, fake) + label_loss(classes, labels, torch.ones(count))
        optimizer_step(adam_d, loss + r1_penalty(D, reals, labels).mean())
        fake, classes = D(fakes, labels)
        optimizer_step(
            adam_g, ns_g(real.detach(), fake) + label_loss(classes, labels, torch.ones(count))
        )
    for net in (G, D):
        assert all(tensor.isfinite().all() for tensor in net.state_dict().values())
    moved = [
        not torch.equal(a, b) for a, b in zip(before.parameters(), G.parameters(), strict=True)
    ]
    assert sum(moved) > len(moved) / 2


@SOME_LABELS
@EVERY
def test_exported_program_draws_any_number_of_rows_at_any_psi(name: str, count: int) -> None:
    G, _ = small(name, count)
    G.eval().requires_grad_(False)
    example = (latents(G.spec, 2), rows_of_labels(2, count), torch.tensor(1.0))
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(
        _Program(G), example, dynamic_shapes=({0: batch}, {0: batch}, None)
    ).module()
    for rows, psi in ((2, 1.0), (3, 0.5)):
        z, labels = latents(G.spec, rows), rows_of_labels(rows, count)
        torch.testing.assert_close(
            program(z, labels, torch.tensor(psi)), G(z, labels, psi=psi), rtol=1e-4, atol=1e-5
        )


@EVERY
def test_autocast_to_bfloat16_gives_nearly_the_same_judgement(name: str) -> None:
    G, D = small(name)
    G.eval(), D.eval()
    z, labels = latents(G.spec, 4), rows_of_labels(4, 4)
    with torch.no_grad():
        exact, _ = D(G(z, labels), labels)
        with torch.autocast("cpu", torch.bfloat16):
            rough, _ = D(G(z, labels), labels)
    torch.testing.assert_close(rough.float(), exact, rtol=0.1, atol=0.1)


@EVERY
def test_only_families_with_w_truncate(name: str) -> None:
    G, _ = small(name, 1)
    labels = torch.ones(2, 1)
    w = G.map(latents(G.spec, 2), labels)
    if w is None:
        with pytest.raises(UsageError, match=f"{name} has no W, which truncation needs"):
            G.truncated(torch.zeros(2, 1, 1), labels, 0.5)
    else:
        assert torch.equal(G.truncated(w, labels, 1.0), w)
