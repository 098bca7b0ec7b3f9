"""Directions of a generator whose own are known; their file; the weights that are factorised."""

import dataclasses
import json
import struct
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from dataset.errors import TrainingError
from models.evaluation.directions import DirectionConfig, Qualities, find_directions
from models.evaluation.fakes import EvalProgress
from models.evaluation.feature_rows import THUMBNAIL, RowExtractor
from models.evaluation.label_judge import Judge
from models.families import family_of
from models.families.base import GeneratorNet, GeneratorSpec, NetworkSize, Noise
from models.io.generators import generator_digest
from models.sampling.directions import DIRECTIONS, Directions, directions_of, read_directions
from tests.models.evaluation.galleries import colours
from tests.models.small_generators import small_generator, write_generator

CONFIG = DirectionConfig(fakes=128, probes=6, factors=2)
PX = 24


class Toy(GeneratorNet):
    """Number 0 of z lightens the picture, number 1 makes it yellow, number 2 moves a bar."""

    def __init__(self) -> None:
        super().__init__()
        self.spec = GeneratorSpec("dcgan64", PX, 8, "normal", ())
        self.weight = torch.nn.Parameter(torch.diag(torch.tensor([3.0, 2, 1, 0, 0, 0, 0, 0])))

    def map(self, z: Tensor, labels: Tensor) -> Tensor | None:
        return None

    def forward(
        self,
        z: Tensor,
        labels: Tensor,
        psi: float | Tensor = 1.0,
        w: Tensor | None = None,
        noise: Noise = "const",
    ) -> Tensor:
        light, yellow, place = z[:, :1, None] / 8, z[:, 1:2, None] / 8, z[:, 2:3, None] / 8
        at = torch.linspace(-1, 1, PX)[None, None]
        bar = 0.5 * torch.exp(-20 * (at - place).square()) + torch.zeros(1, PX, 1)
        return torch.stack(
            [bar + light + yellow / 20, bar + light + yellow / 20, bar + light - yellow], 1
        )

    def style_weights(self) -> list[Tensor]:
        return [self.weight]


def found_in(generator: GeneratorNet) -> Directions:
    width = 48 + THUMBNAIL
    judge = Judge(np.zeros(width), np.ones(width), np.zeros((width, 0)), np.zeros(0))
    qualities = Qualities((), RowExtractor(colours(), torch.device("cpu"), judge))
    progress = EvalProgress(
        0, report=lambda _facts: None, advance=lambda _count: None, stop_signal=lambda: 0
    )
    found = find_directions(generator, np.zeros((1, 0), np.float32), qualities, progress, CONFIG)
    assert found is not None
    return found


@pytest.fixture(scope="module")
def toy() -> Directions:
    return found_in(Toy().eval().requires_grad_(False))


@pytest.mark.parametrize(("name", "number"), [("brightness", 0), ("warmth", 1), ("sideways", 2)])
def test_a_known_direction_is_found_and_bears_the_name_of_what_it_moves(
    toy: Directions, name: str, number: int
) -> None:
    # Of the picture, of its hair or of its background: here they are the same one.
    (one,) = (one for one in toy.found if one.name.endswith(name))
    assert one.vector.shape == (1, 8)
    length = np.linalg.norm(one.vector)
    assert one.vector[0, number] > 0.9 * length  # and not the other way round
    assert 0.8 < length < 1.2
    assert one.effect > 0.9
    assert one.effect > 2 * one.side_effect
    shift = toy.shift([(one.name, -2.0)])
    assert shift[0, number] == pytest.approx(-2 * one.vector[0, number])


def test_the_same_generator_has_the_same_directions_which_read_back(toy: Directions) -> None:
    content = toy.to_bytes()
    assert found_in(Toy().eval().requires_grad_(False)).to_bytes() == content
    read = Directions.from_bytes(content, Toy().spec, where="a")
    assert read.names == toy.names
    assert read.to_bytes() == content


def test_directions_lie_beside_the_weights_that_they_are_of(
    tmp_path: Path, toy: Directions
) -> None:
    network = small_generator("dcgan64")
    folder = Path(write_generator(tmp_path / "a", network))
    assert directions_of(str(folder), network) is None
    vector = np.zeros((1, 100), np.float32)
    own = dataclasses.replace(
        toy,
        found=(dataclasses.replace(toy.found[0], vector=vector),),
        generator=generator_digest(network),
    )
    (folder / DIRECTIONS).write_bytes(own.to_bytes())
    read = directions_of(str(folder), network)
    assert read is not None
    assert read.names == own.names
    assert read_directions(str(folder), network.spec, digest="ab" * 32) is None


def _with_head(content: bytes, metadata: object) -> bytes:
    (length,) = struct.unpack_from("<Q", content)
    head = json.dumps(json.loads(content[8 : 8 + length]) | {"__metadata__": metadata}).encode()
    return struct.pack("<Q", len(head)) + head + content[8 + length :]


def _renamed(content: bytes, name: object) -> bytes:
    (length,) = struct.unpack_from("<Q", content)
    facts = json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["directions"])
    facts["directions"][0]["name"] = name
    return _with_head(content, {"directions": json.dumps(facts)})


@pytest.mark.parametrize(
    ("damage", "reported"),
    [
        (lambda content: content[:-3], "no whole safetensors file"),
        (lambda content: content.replace(b'"effect', b'"effecd'), "effect is missing"),
        (lambda content: content.replace(b"_effect", b"_effecd"), "side_effect is missing"),
        (lambda content: _renamed(content, ["a"]), r"name is \['a'\], a name of 1 to 200"),
        (lambda content: _renamed(content, ""), "name is '', a name of 1 to 200"),
        (lambda content: _renamed(content, "a,b"), "name is 'a,b', a name of 1 to 200"),
        (lambda content: _with_head(content, None), "generator is missing"),
    ],
)
def test_a_damaged_file_is_named_with_its_faults(  # type: ignore[no-untyped-def]
    toy: Directions, damage, reported: str
) -> None:
    with pytest.raises(TrainingError, match=reported):
        Directions.from_bytes(damage(toy.to_bytes()), Toy().spec, where="a.safetensors")
    with pytest.raises(TrainingError, match=r"vectors are \[.*\], float32 \[.*, 1, 100\] wanted"):
        Directions.from_bytes(toy.to_bytes(), small_generator("dcgan64").spec, where="a")


@pytest.mark.parametrize(
    "family", ["acgan64", "dcgan64", "dcgan96", "omokage", "srresnet", "stylegan2"]
)
def test_a_shift_that_the_first_weights_do_not_see_changes_no_style(family: str) -> None:
    maker = family_of(family)
    size = NetworkSize(
        maker.resolutions_px[0], width=0.03, blocks=1, channel_base=64, channel_max=8,
        w_dim=12, mapping_layers=1,
    )  # fmt: skip
    network = maker.generator(maker.spec(("a", "b"), size))
    weights = network.style_weights()
    spec = network.spec
    assert len(weights) == (spec.w_layers or 1)
    assert {one.shape[1] for one in weights} == {spec.w_dim or spec.z_dim}
