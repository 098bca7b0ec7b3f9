"""The family omokage: its generator at every small side, and its judges of frozen features."""

import dataclasses
import json
import shutil
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from dataset.errors import ConfigError, TrainingError
from models.families import family_of
from models.families.base import NetworkSize
from models.families.omokage import COLOUR_SCALE, LABEL_SCALE, Discriminator
from models.io.generators import load_generator, read_spec
from models.layers.frozen_features import CHANNELS, TAPS, FrozenFeatures, pretrained
from models.registry.program import ProgramGenerator, _Program, export_generator
from models.training import distributed
from tests.models.homes import training_set
from tests.models.small_generators import (
    label_names,
    small_generator,
    some_labels,
    w_networks,
    write_generator,
)
from tests.models.test_step import Steps
from tests.models.trainings import heads, narrow, trained

FIRST_PX = {32: 4, 64: 4, 96: 6, 128: 4}
EVERY_SIDE = pytest.mark.parametrize("side", FIRST_PX)


def size(side: int) -> NetworkSize:
    return NetworkSize(side, channel_base=256, channel_max=8, w_dim=12, mapping_layers=2)


# The generator


@EVERY_SIDE
def test_noise_goes_in_at_all_layers_but_the_first_dense_and_the_colours(side: int) -> None:
    G, _ = w_networks("omokage", size=size(side))
    sides = G.noise_sides()
    assert (sides[0], sides[-1], len(sides)) == (FIRST_PX[side], side, G.spec.w_layers - 2)
    z, rows = torch.randn(2, 12), some_labels(2)
    drawn = G(z, rows)
    assert drawn.shape == (2, 3, side, side)
    assert drawn.abs().max() <= 1
    own = [value for name, value in G.state_dict().items() if name.endswith("noise_const")]
    assert torch.equal(G(z, rows, noise=own), drawn)
    zeros = [torch.zeros(2, 1, each, each) for each in sides]
    none = G(z, rows, noise="none")
    torch.testing.assert_close(G(z, rows, noise=zeros), none, rtol=1e-4, atol=1e-5)
    torch.manual_seed(7)
    first, second = G(z, rows, noise="random"), G(z, rows, noise="random")
    torch.manual_seed(7)
    assert torch.equal(G(z, rows, noise="random"), first)
    assert not torch.equal(first, second)


@EVERY_SIDE
def test_each_w_moves_the_picture_and_a_given_w_is_drawn_as_it_is(side: int) -> None:
    G, _ = w_networks("omokage", size=size(side))
    rows = some_labels(1)
    one, other = (G.map(torch.randn(1, 12), rows) for _ in range(2))
    drawn = G(torch.zeros(1, 12), 1 - rows, psi=0.3, w=one, noise="none")
    assert torch.equal(drawn, G(one[:, 0], rows, w=one, noise="none"))
    for layer in range(G.spec.w_layers):
        mixed = one.clone()
        mixed[:, layer] = other[:, layer]
        assert not torch.equal(G(one[:, 0], rows, w=mixed, noise="none"), drawn), layer


def test_late_w_leave_the_coarse_layers_as_they_are() -> None:
    G, _ = w_networks("omokage", size=size(64))
    rows = some_labels(1)
    one, other = (G.map(torch.randn(1, 12), rows) for _ in range(2))
    late = one.clone()
    late[:, 5:] = other[:, 5:]  # from 16 px on
    found: list[Tensor] = []
    for layer in G.get_submodule("layers").children():
        layer.register_forward_hook(lambda _m, _i, out: found.append(out))
    for w in (one, late):
        G(one[:, 0], rows, w=w, noise="none")
    count = len(found) // 2
    same = [torch.equal(a, b) for a, b in zip(found[:count], found[count:], strict=True)]
    assert same == [True] * 4 + [False] * 4  # w 1 to 8; the Dense reads w 0, the colours w 9


def test_psi_goes_from_the_mean_face_of_the_labels_to_full_variety() -> None:
    G, _ = w_networks("omokage")
    z, rows = torch.randn(6, 12), some_labels(6)
    w = G.map(z, rows)
    torch.testing.assert_close(G.truncated(w, rows, 1.0), w)
    torch.testing.assert_close(
        G.truncated(w, rows, 0.5), (w + G.truncated(w, rows, 0.0)) / 2, rtol=1e-5, atol=1e-6
    )
    images = G(z, rows, psi=0.0)
    torch.testing.assert_close(images[:3], images[3:], rtol=1e-4, atol=1e-5)
    assert (images[0] - images[1]).abs().max().item() > 0.01


@pytest.mark.slow  # every family is exported at its least side in the fast tier
@pytest.mark.parametrize("side", [96, 128])
def test_an_exported_program_draws_one_picture_and_more(side: int) -> None:
    G, _ = w_networks("omokage", size=size(side))
    G.requires_grad_(False)
    batch = torch.export.Dim("batch", min=1)
    program = torch.export.export(
        _Program(G),
        (torch.randn(2, 12), some_labels(2), torch.tensor(1.0)),
        dynamic_shapes=({0: batch}, {0: batch}, None),
    ).module()
    for rows, psi in ((1, 0.7), (3, 1.0)):
        z, labels = torch.randn(rows, 12), some_labels(rows)
        torch.testing.assert_close(
            program(z, labels, torch.tensor(psi)), G(z, labels, psi=psi), rtol=1e-4, atol=1e-5
        )


def test_a_clamp_is_no_part_of_a_spec() -> None:
    G, _ = w_networks("omokage")
    spec = G.spec.to_json() | {"conv_clamp": 256.0}
    with pytest.raises(TrainingError, match=r"conv_clamp is 256.0; omokage has 0\.0"):
        read_spec(spec, where="spec.json")


# The discriminator


def test_each_judge_sees_labels_and_the_label_head_does_not() -> None:
    _, D = w_networks("omokage")
    x, rows = torch.randn(1, 3, 32, 32).repeat(2, 1, 1, 1), some_labels(2)
    realness, logits = D(x, rows)
    assert realness.shape == (2, 5)
    assert bool(((realness[0] - realness[1]).abs() > 1e-4).all())
    torch.testing.assert_close(logits[0], logits[1])


def test_reals_and_fakes_that_are_judged_in_one_go_are_judged_as_if_alone() -> None:
    _, D = w_networks("omokage")
    D.eval()  # in training a spectral norm is nearer to 1 after each pass
    x, rows = torch.randn(12, 3, 32, 32), some_labels(12)
    assert isinstance(D, Discriminator)
    both = D.judge(D.features(x), rows, sets=2)
    halves = [D(x[half], rows[half]) for half in (slice(6), slice(6, 12))]
    torch.testing.assert_close(both, tuple(map(torch.cat, zip(*halves, strict=True))))


def test_a_summary_has_the_averages_of_each_map_the_colours_and_the_labels() -> None:
    _, D = w_networks("omokage", size=size(64))
    assert isinstance(D, Discriminator)
    images, rows = torch.randn(2, 3, 64, 64), some_labels(2)
    maps = D.features(images)
    assert [one.shape for one in maps] == [
        *((2, 8, side, side) for side in (16, 8, 4, 2)),
        (2, 3, 16, 16),
    ]
    found = D.summary(maps, rows)
    averages, labels = found[:, : -rows.shape[1]], found[:, -rows.shape[1] :]
    assert torch.equal(labels, LABEL_SCALE * rows)
    assert averages.shape == (2, 4 * 4 * 8 + 192)
    torch.testing.assert_close(averages[:, 96:128], maps[3].flatten(1) / 32**0.5)
    colours = COLOUR_SCALE * images.view(2, 3, 8, 8, 8, 8).mean(dim=(3, 5))
    torch.testing.assert_close(averages[:, 128:], colours.flatten(1) / 192**0.5)
    ones = D.summary([torch.ones_like(one) for one in maps], torch.zeros_like(rows))
    torch.testing.assert_close(ones.norm(dim=1), torch.full((2,), 5.0).sqrt())  # 1 a map


def test_no_two_processes_share_pictures_that_a_judge_sees_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _, D = w_networks("omokage")
    x, rows = torch.randn(8, 3, 32, 32), some_labels(8)
    other = torch.cat([torch.randn(1, 3, 32, 32), x[1:]])
    moved = (D(x, rows)[0] - D(other, rows)[0]).abs().sum(dim=1) > 0
    assert moved.tolist() == [True] * 4 + [False] * 4
    monkeypatch.setattr(distributed, "world", lambda: 2)
    with pytest.raises(ConfigError, match="batch is 12; a multiple of 8 is wanted for 2 processes"):
        trained(tmp_path, training_set(), narrow("omokage", batch=12))


# Frozen features


@pytest.mark.parametrize("side", [64, 96])
def test_frozen_blocks_give_what_those_of_the_package_do(side: int) -> None:
    network, sha256 = pretrained("lite0")
    ours = FrozenFeatures(8)
    assert ours.sha256 == sha256
    x = torch.rand(2, 3, side, side) * 2 - 1
    found: list[Tensor] = []
    blocks = network.get_submodule("_blocks")
    for at in TAPS:
        blocks.get_submodule(str(at)).register_forward_hook(lambda *seen: found.append(seen[2]))
    network.extract_features(x)  # type: ignore[operator]
    y, taken = ours.stem(x), []
    for at, block in enumerate(ours.blocks):
        y = block(y)
        taken += [y] if at in TAPS else []
    assert [one.shape[1] for one in taken] == list(CHANNELS)
    assert [side // one.shape[2] for one in taken] == [4, 8, 16, 32]
    for one, other in zip(taken, found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-3)


def test_maps_of_faces_are_about_1_in_size() -> None:
    images = torch.from_numpy(training_set().images).float() / 127.5 - 1
    for one in FrozenFeatures(32)(images):
        assert 0.3 < one.square().mean().sqrt().item() < 3


def test_frozen_features_learn_nothing_save_nothing_and_are_the_same_for_all() -> None:
    made = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        made.append(FrozenFeatures(16))
    assert not list(made[0].parameters())
    assert not made[0].state_dict()
    first, second = (dict(one.named_buffers()) for one in made)
    assert first.keys() == second.keys()
    assert all(torch.equal(first[name], second[name]) for name in first)
    # Another process has them from the seed alone: these are the numbers that it gives.
    assert first["across0"].flatten()[:3].tolist() == pytest.approx(
        [-0.0006174, 0.0309484, -0.0192752], abs=1e-6
    )


def test_on_a_device_without_values_the_frozen_part_still_has_its_own(
    recwarn: pytest.WarningsRecorder,
) -> None:
    spec = family_of("omokage").spec(label_names(2), size(32))
    with torch.device("meta"):
        D = family_of("omokage").discriminator(spec)
    assert all(one.is_meta for one in D.parameters())
    assert not any(one.is_meta for one in D.get_submodule("frozen").buffers())
    assert list(recwarn) == []


@pytest.mark.parametrize("d_steps", [1, 2])
def test_each_picture_goes_through_the_frozen_network_once_a_step(d_steps: int) -> None:
    steps = Steps(training_set(), narrow("omokage", batch=4, d_steps=d_steps, mixing=0.9))
    counts: list[int] = []
    frozen = steps.state.D.get_submodule("frozen")
    frozen.register_forward_hook(lambda _m, given, _out: counts.append(len(given[0])))
    steps.step()
    assert counts == [4, 4] * d_steps  # fakes and reals; G's step has those of the last of D's


def test_d_sees_pictures_enlarged_to_its_own_side() -> None:
    steps = Steps(training_set(), narrow("omokage", batch=4, d_resolution_px=64))
    D = steps.state.D
    assert isinstance(D, Discriminator)
    images = torch.rand(4, 3, 32, 32) * 2 - 1
    large = F.interpolate(images, scale_factor=2, mode="bilinear")
    pairs = list(zip(D.features(images), D.features(large), strict=True))
    assert [tuple(one.shape[2:]) for one, _ in pairs] == [(s, s) for s in (16, 8, 4, 2, 16)]
    assert all(torch.equal(one, other) for one, other in pairs)
    before = [one.clone() for one in steps.state.G.parameters()]
    steps.step()
    assert not any(map(torch.equal, before, steps.state.G.parameters()))


# What was called omokage before: StyleGAN2's generator


@pytest.fixture
def before(tmp_path: Path) -> Path:
    """A generator of the family as it was before it saw features, which draws as StyleGAN2."""
    folder = tmp_path / "generator"
    write_generator(folder, small_generator("stylegan2"))
    spec = json.loads((folder / "spec.json").read_text()) | {"family": "omokage"}
    (folder / "spec.json").write_text(json.dumps(spec))
    return folder


def test_a_generator_of_before_draws_what_it_drew(before: Path) -> None:
    found, drawn = load_generator(str(before)), small_generator("stylegan2")
    assert (found.spec.family, found.spec.trained_on_features) == ("stylegan2", ())
    z, rows = torch.randn(2, 12), some_labels(2)
    assert torch.equal(found(z, rows, psi=0.7), drawn(z, rows, psi=0.7))


@pytest.mark.slow
def test_a_registered_model_of_before_draws_what_it_drew(before: Path, tmp_path: Path) -> None:
    files = export_generator(str(before), tmp_path / "model")
    shutil.copy(before / "spec.json", files)
    found, drawn = ProgramGenerator(files), small_generator("stylegan2")
    assert (found.spec.family, found.can_less) == ("stylegan2", True)
    z, rows = torch.randn(3, 12), some_labels(3)
    torch.testing.assert_close(found(z, rows), drawn(z, rows), rtol=1e-4, atol=1e-5)


def test_a_training_of_before_is_not_resumed_and_snapshots_have_another_judge(
    tmp_path: Path,
) -> None:
    config = narrow("omokage", batch=4, total_kimg=0.004, score_pictures=4)
    data = heads(config.resolution_px)
    trained(tmp_path, data, config)
    (tick,) = (tmp_path / "run" / "progress.jsonl").read_text().splitlines()
    assert json.loads(tick)["snapshot_fd_efficientnet_lite2_4"] > 0
    (path,) = (tmp_path / "run" / "checkpoints").glob("*/state.json")
    facts = json.loads(path.read_text())
    del facts["config"]["energy_weight"]  # which came with the features
    path.write_text(json.dumps(facts))
    longer = dataclasses.replace(config, total_kimg=0.008)
    for more in ({}, {"out": "next", "continue_from": "run"}):
        with pytest.raises(TrainingError, match="omokage whose D judged pixels"):
            trained(tmp_path, data, longer, **more)  # type: ignore[arg-type]
