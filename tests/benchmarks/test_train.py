"""The benchmark of training: both sides do the same work, and it ends with one line of JSON."""

import json
import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from benchmarks.plain_stylegan2 import PlainDiscriminator, PlainGenerator, PlainSize
from benchmarks.process import REPOSITORY
from benchmarks.train import main
from models.families import stylegan2
from models.families.base import NetworkSize

pytestmark = pytest.mark.slow

SIDE = 16
PLAIN = PlainSize(SIDE, channel_base=128, channel_max=16, w_dim=12, mapping_layers=3)
SPEC = stylegan2.spec(
    (), NetworkSize(SIDE, channel_base=128, channel_max=16, w_dim=12, mapping_layers=3)
)
# Ours by the plain one's: what differs is the name alone.
RENAMED = (
    ("layers.", "convs."),
    ("mapping.", "mapping.layers."),
    ("colours.", "rgbs."),
    (".conv.style.", ".affine."),
    (".conv.weight", ".weight"),
    (".strength", ".noise_strength"),
)


def renamed(name: str) -> str:
    for old, new in RENAMED:
        name = name.replace(old, new, 1)
    return name


@torch.no_grad()
def take(plain: nn.Module, weights: dict[str, Tensor]) -> None:
    """Gives the plain network the other's weights."""
    for name, weight in plain.named_parameters():
        weight.copy_(weights.pop(name).view_as(weight))
    assert not weights


def test_the_plain_generator_draws_what_ours_does() -> None:
    torch.manual_seed(0)
    ours, plain = stylegan2.Generator(SPEC), PlainGenerator(PLAIN)
    own = dict(ours.named_parameters())
    take(plain, {name: own.pop(renamed(name)) for name, _ in plain.named_parameters()})
    assert not own
    z = torch.randn(4, 12)
    w = ours.map(z, torch.zeros(4, 0))
    assert torch.allclose(plain.map(z), w[:, 0], atol=1e-5)
    drawn = ours(z, torch.zeros(4, 0), w=w, noise="none")  # the strength of noise begins at 0
    assert torch.allclose(plain(w), drawn, atol=1e-4)


def test_the_plain_discriminator_judges_as_ours_does() -> None:
    torch.manual_seed(0)
    ours, plain = stylegan2.Discriminator(SPEC), PlainDiscriminator(PLAIN)
    names = [name for name, _ in plain.named_parameters()]
    take(plain, dict(zip(names, ours.parameters(), strict=True)))
    images = torch.rand(4, 3, SIDE, SIDE) * 2 - 1
    assert torch.allclose(plain(images), ours(images, torch.zeros(4, 0))[0], atol=1e-4)


def test_a_family_is_measured_in_a_process_of_its_own() -> None:
    small = ["--set", "batch=4", "--set", "g_width=0.02", "--set", "d_width=0.05"]
    options = ["--device", "cpu", "--families", "dcgan64", "--runs", "2", "--steps", "1"]
    ended = subprocess.run(
        [sys.executable, "-m", "benchmarks.train", *options, *small, "--skip-plain"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=True,
    )
    result = json.loads(ended.stdout.splitlines()[-1])
    assert result["benchmark"] == "train"
    assert list(result["families"]) == ["dcgan64"]
    measured = result["families"]["dcgan64"]
    assert measured["images_per_s"] > 0
    assert measured["steps_a_run"] == 4  # a whole round of the lazy penalty
    assert 0 < measured["data_wait"] < 1
    assert measured["peak_mb"] > 50
    assert measured["batch"] == 4


def test_both_sides_are_timed_by_turns(capsys: pytest.CaptureFixture[str]) -> None:
    small = {"resolution_px": 8, "g_channel_base": 32, "d_channel_base": 32, "w_dim": 8, "batch": 4}
    words = [word for name, value in small.items() for word in ("--set", f"{name}={value}")]
    assert main(["--device", "cpu", "--child", "plain", "--runs", "2", *words]) == 0
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert result["steps_a_turn"] == 16
    assert result["ratio"] > 0
    assert result["ours_s"] > 0
    assert result["plain_s"] > 0


def test_an_unknown_family_is_refused_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--device", "cpu", "--families", "stylegan3"]) == 3
    assert 'unknown family "stylegan3"; did you mean "stylegan2"?' in capsys.readouterr().err
