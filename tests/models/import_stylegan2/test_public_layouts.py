"""The same z gives the same picture: public layouts against references written for these tests."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from dataset.errors import OmokageError, StoreError, TrainingError, UsageError
from models.families.base import GeneratorNet
from models.import_stylegan2.importer import import_weights
from models.import_stylegan2.tensor_table import spec_from
from models.io.generators import load_generator, typical_rows
from models.registry.program import export_generator
from models.sampling.draw import asked_labels, draw, latents, to_uint8
from tests.models.import_stylegan2 import nvidia_reference as nvidia
from tests.models.import_stylegan2 import rosinality_reference as rosinality

NONE = torch.zeros(4, 0)
CLOSE = 1e-4


def z_of(dim: int) -> Tensor:
    return latents(range(4), dim)


def imported(file: Path) -> GeneratorNet:
    out = file.parent / "imported"
    import_weights(file, out)
    return load_generator(str(out))


def apart(one: Tensor, other: Tensor) -> float:
    assert one.shape == other.shape
    return float((one - other).abs().max() / other.abs().max())


@pytest.mark.parametrize("old", [False, True], ids=["zip", "before-1.6"])
@pytest.mark.parametrize("bare", [False, True], ids=["checkpoint", "bare"])
def test_rosinality_draws_the_same_pictures(tmp_path: Path, old: bool, bare: bool) -> None:
    theirs = rosinality.small()
    state = theirs.state_dict()
    held = state if bare else {"g": {}, "d": {"a": torch.ones(1)}, "g_ema": state}
    ours = imported(rosinality.save(tmp_path / "g.pt", held, old=old))
    assert apart(ours(z_of(8), NONE), theirs(z_of(8))) < CLOSE
    assert ours.spec.resolution_px == 16
    assert (ours.spec.channel_base, ours.spec.channel_max) == (96, 12)
    assert (ours.spec.w_dim, ours.spec.mapping_layers, ours.spec.labels) == (8, 3, ())


def test_rosinality_takes_the_same_noise(tmp_path: Path) -> None:
    theirs = rosinality.small()
    ours = imported(rosinality.save(tmp_path / "g.pt", {"g_ema": theirs.state_dict()}))
    noise = [torch.randn(4, 1, side, side) for side in ours.noise_sides()]
    assert ours.noise_sides() == [4, 8, 8, 16, 16]
    assert apart(ours(z_of(8), NONE, noise=noise), theirs(z_of(8), noises=noise)) < CLOSE
    assert apart(ours(z_of(8), NONE), theirs(z_of(8), noises=noise)) > 0.01


def without_noise_maps(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """A state as the code before January 2020 wrote it, which kept no noise maps."""
    return {name: tensor for name, tensor in state.items() if not name.startswith("noises.")}


def test_rosinality_without_any_noise_maps_draws_as_with_none_and_with_given_ones(
    tmp_path: Path,
) -> None:
    theirs = rosinality.small()
    state = without_noise_maps(theirs.state_dict())
    ours = imported(rosinality.save(tmp_path / "g.pt", {"g_ema": state}))
    silent = [torch.zeros(4, 1, side, side) for side in ours.noise_sides()]
    given = [torch.randn_like(one) for one in silent]
    own = [conv.get_buffer("noise_const") for conv in ours.get_submodule("convs").children()]
    for noise, maps in (("none", silent), (given, given), ("const", own)):
        drawn, wanted = ours(z_of(8), NONE, noise=noise), theirs(z_of(8), noises=maps)
        assert apart(drawn, wanted) < CLOSE
        off = np.abs(to_uint8(drawn).astype(int) - to_uint8(wanted))
        assert off.max() <= 1
        assert wanted.std() > 0.1


def test_the_noise_maps_of_a_file_without_any_are_of_one_seed_and_noted(tmp_path: Path) -> None:
    made = [
        import_weights(
            rosinality.save(tmp_path / "g.pt", without_noise_maps(theirs.state_dict())),
            tmp_path / f"out{number}",
        )
        for number, theirs in enumerate((rosinality.small(0), rosinality.small(1)))
    ]
    one, two = (load_generator(each.folder) for each in made)
    maps = {name: tensor for name, tensor in one.named_buffers() if "noise" in name}
    assert len(maps) == 5
    assert all(torch.equal(tensor, two.get_buffer(name)) for name, tensor in maps.items())
    assert all(0.5 < float(tensor.std()) < 1.5 for tensor in maps.values())
    (note,) = made[0].notes
    assert "the file holds no noise maps; ours are of seed" in note
    facts = json.loads((tmp_path / "out0" / "train.json").read_text())
    assert facts["imported"]["notes"] == [note]


@pytest.mark.parametrize("shape", [(1, 8), (6, 8), (1, 6, 8)])
def test_rosinality_with_the_mean_once_a_layer_takes_it_once(
    tmp_path: Path, shape: tuple[int, ...]
) -> None:
    theirs, centre = rosinality.small(), torch.randn(8)
    held = {"g_ema": theirs.state_dict(), "latent_avg": centre.expand(shape).clone()}
    ours = imported(rosinality.save(tmp_path / "g.pt", held))
    assert torch.equal(ours.get_buffer("w_avg"), centre)
    assert apart(ours(z_of(8), NONE, psi=0.4), theirs(z_of(8), 0.4, centre)) < CLOSE


@pytest.mark.parametrize(
    ("centre", "message"),
    [
        (torch.eye(8)[:6], "latent_avg is [6, 8] and its rows differ; one mean w [8], or the same"),
        (torch.ones(7), "latent_avg is [7], [8] wanted"),
        (torch.ones(8, 7), "latent_avg is [8, 7], [8] wanted"),
        (torch.ones(0, 8), "latent_avg is [0, 8], [8] wanted"),
    ],
)
def test_a_mean_of_another_form_is_named(tmp_path: Path, centre: Tensor, message: str) -> None:
    held = {"g_ema": rosinality.small().state_dict(), "latent_avg": centre}
    assert message in refusal(rosinality.save(tmp_path / "g.pt", held))


@pytest.mark.parametrize(
    ("prefix", "key", "beside"),
    [
        ("module.", "g_ema", {}),  # torch's DataParallel
        ("decoder.", "state_dict", {"encoder.input_layer.0.weight": torch.ones(1)}),  # pSp, e4e
    ],
)
def test_rosinality_under_a_prefix_is_taken(
    tmp_path: Path, prefix: str, key: str, beside: dict[str, Tensor]
) -> None:
    theirs, centre = rosinality.small(), torch.randn(8)
    state = {f"{prefix}{name}": tensor for name, tensor in theirs.state_dict().items()}
    held = {key: {**beside, **state}, "latent_avg": centre.repeat(6, 1), "opts": {"lr": 0.1}}
    ours = imported(rosinality.save(tmp_path / "g.pt", held))
    assert apart(ours(z_of(8), NONE, psi=0.4), theirs(z_of(8), 0.4, centre)) < CLOSE


def test_rosinality_truncates_towards_the_mean_of_the_file(tmp_path: Path) -> None:
    theirs, centre = rosinality.small(), torch.randn(8)
    held = {"g_ema": theirs.state_dict(), "latent_avg": centre}
    ours = imported(rosinality.save(tmp_path / "g.pt", held))
    assert apart(ours(z_of(8), NONE, psi=0.4), theirs(z_of(8), 0.4, centre)) < CLOSE


def test_rosinality_without_a_mean_gets_that_of_many_latents(tmp_path: Path) -> None:
    theirs = rosinality.small()
    ours = imported(rosinality.save(tmp_path / "g.pt", theirs.state_dict()))
    with torch.no_grad():
        mean = theirs.style(torch.randn(20_000, 8)).mean(dim=0)
    assert float((ours.get_buffer("w_avg") - mean).abs().max()) < 0.1 * float(mean.abs().max())
    facts = json.loads((tmp_path / "imported" / "train.json").read_text())
    assert facts["imported"]["w_avg"] == "mean of 4096 mapped latents"


def test_a_checkpoint_with_its_options_and_optimisers_is_taken(tmp_path: Path) -> None:
    import argparse

    theirs = rosinality.small()
    optimiser = torch.optim.Adam(theirs.parameters())
    theirs(z_of(8))
    held = {
        "g_ema": theirs.state_dict(),
        "g_optim": optimiser.state_dict(),
        "args": argparse.Namespace(size=16, path="faces.lmdb", r1=10.0),
        "ada_aug_p": 0.1,
    }
    ours = imported(rosinality.save(tmp_path / "g.pt", held))
    assert apart(ours(z_of(8), NONE), theirs(z_of(8))) < CLOSE


def test_half_precision_is_widened(tmp_path: Path) -> None:
    state = {name: tensor.half() for name, tensor in rosinality.small().state_dict().items()}
    ours = imported(rosinality.save(tmp_path / "g.pt", state))
    assert {tensor.dtype for tensor in ours.state_dict().values()} == {torch.float32}


@pytest.mark.parametrize("options", [{"z_dim": 6}, {"lr": 1.0}])
@pytest.mark.parametrize("psi", [1.0, 0.3])  # below 1 towards its running mean
def test_nvidia_draws_the_same_pictures(
    tmp_path: Path, options: dict[str, Any], psi: float
) -> None:
    theirs = nvidia.small(**options)
    file = nvidia.save(
        tmp_path / "g.pkl", G=nvidia.small(seed=1), D=nvidia.Discriminator(), G_ema=theirs
    )
    ours = imported(file)
    z = z_of(ours.spec.z_dim)
    assert apart(ours(z, NONE, psi=psi), theirs(z, NONE, psi=psi)) < CLOSE
    assert (ours.spec.w_dim, ours.spec.mapping_layers) == (8, 2)


def test_nvidia_with_labels_draws_the_same_pictures(tmp_path: Path) -> None:
    theirs = nvidia.small(c_dim=3)
    ours = imported(nvidia.save(tmp_path / "g.pkl", G_ema=theirs))
    labels = torch.eye(3)[[0, 1, 2, 1]]
    assert ours.spec.labels == ("label_0", "label_1", "label_2")
    assert apart(ours(z_of(8), labels), theirs(z_of(8), labels)) < CLOSE
    rows = typical_rows(str(tmp_path / "imported"), ours.spec.labels)
    assert rows.tolist() == np.eye(3).tolist()


@pytest.mark.parametrize("psi", [0.5, torch.tensor(0.5), 0.0])
def test_nvidia_with_labels_truncates_as_theirs_towards_the_mean_of_the_file(
    tmp_path: Path, psi: float | Tensor
) -> None:
    theirs = nvidia.small(c_dim=3)
    ours = imported(nvidia.save(tmp_path / "g.pkl", G_ema=theirs))
    labels = torch.eye(3)[[0, 1, 2, 1]]
    wanted = theirs(z_of(8), labels, psi=float(psi))
    assert apart(ours(z_of(8), labels, psi=psi), wanted) > 0.01  # towards that of the labels
    ours.truncation_centre = "global"
    assert apart(ours(z_of(8), labels, psi=psi), wanted) < CLOSE


def test_a_clamp_that_is_reached_is_applied(tmp_path: Path) -> None:
    theirs = nvidia.clamped(0.5)
    file = nvidia.save(tmp_path / "g.pkl", G_ema=theirs)
    made = import_weights(file, tmp_path / "imported")
    ours = load_generator(made.folder)
    assert apart(ours(z_of(8), NONE), theirs(z_of(8), NONE)) < CLOSE
    assert apart(ours(z_of(8), NONE), nvidia.small()(z_of(8), NONE)) > 0.1
    assert ours.spec.conv_clamp == 0.5
    assert made.notes == ()


def test_a_clamp_that_is_not_reached_changes_nothing(tmp_path: Path) -> None:
    file = nvidia.save(tmp_path / "g.pkl", G_ema=nvidia.clamped(256))
    plain = nvidia.save(tmp_path / "plain.pkl", G_ema=nvidia.small())
    import_weights(plain, tmp_path / "plain")
    unclamped = load_generator(str(tmp_path / "plain"))
    assert torch.equal(imported(file)(z_of(8), NONE), unclamped(z_of(8), NONE))
    assert "conv_clamp" not in (tmp_path / "plain" / "spec.json").read_text()


@pytest.mark.parametrize("layout", ["rosinality", "nvidia"])
def test_our_tools_draw_with_it(tmp_path: Path, layout: str) -> None:
    if layout == "nvidia":
        file = nvidia.save(tmp_path / "g.pkl", G_ema=nvidia.small())
    else:
        file = rosinality.save(tmp_path / "g.pt", rosinality.small().state_dict())
    ours = imported(file)
    folder = str(tmp_path / "imported")
    labels = asked_labels([], range(5), known=(), typical=typical_rows(folder, ()))
    pictures = draw(ours, labels, range(5), psi=0.7)
    assert pictures.shape == (5, 16, 16, 3)
    assert len({picture.tobytes() for picture in pictures}) == 5


def test_it_exports_for_the_registry(tmp_path: Path) -> None:
    imported(nvidia.save(tmp_path / "g.pkl", G_ema=nvidia.small()))
    made = export_generator(str(tmp_path / "imported"), tmp_path / "exported")
    assert (made / "generator.pt2").exists()


def test_the_folder_says_where_it_comes_from_and_pretends_no_training(tmp_path: Path) -> None:
    file = nvidia.save(tmp_path / "faces.pkl", G_ema=nvidia.small())
    made = import_weights(file, tmp_path / "out")
    facts = json.loads((tmp_path / "out" / "train.json").read_text())
    assert facts["imported"]["file"] == "faces.pkl"
    assert facts["imported"]["sha256"] == made.sha256
    assert len(facts["config_digest"]) == 64
    assert "images_seen" not in facts
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "generator.safetensors", "spec.json", "train.json", "typical_labels.json",
    ]  # fmt: skip


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").write_text("kept")
    file = nvidia.save(tmp_path / "g.pkl", G_ema=nvidia.small())
    with pytest.raises(UsageError, match="out is there already; name a new or empty folder"):
        import_weights(file, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["mine.txt"]


def test_a_folder_below_a_file_cannot_be_made(tmp_path: Path) -> None:
    file = nvidia.save(tmp_path / "g.pkl", G_ema=nvidia.small())
    with pytest.raises(StoreError, match="cannot be made"):
        import_weights(file, file / "out")


@pytest.mark.parametrize(
    ("widths", "base", "maximum"),
    [
        ({4: 512, 8: 512, 16: 512, 32: 512, 64: 512, 128: 256}, 32_768, 512),
        ({4: 512, 8: 512, 16: 512, 32: 512, 64: 256, 128: 128}, 16_384, 512),
        ({4: 64, 8: 32, 16: 16}, 256, 64),
        ({4: 512, 8: 512}, 4096, 512),
    ],
)
def test_base_and_maximum_are_found(widths: dict[int, int], base: int, maximum: int) -> None:
    spec = spec_from(widths, labels=(), z_dim=8, w_dim=8, mapping_layers=2, where="g.pt")
    assert (spec.channel_base, spec.channel_max) == (base, maximum)


@pytest.mark.parametrize(
    ("widths", "message"),
    [
        ({4: 512, 8: 256, 16: 200}, r"512 at 4, 256 at 8, 200 at 16 px; min\(base / side"),
        ({4: 8, 8: 16}, "its channels are 8 at 4, 16 at 8 px"),
        ({4: 8, 16: 8}, "the layers draw at 4, 16 px; each power of two"),
        ({4: 8, 8: 8, 12: 8}, "the layers draw at 4, 8, 12 px"),
        ({4: 8}, "the layers draw at 4 px"),
    ],
)
def test_another_table_of_channels_is_refused(widths: dict[int, int], message: str) -> None:
    with pytest.raises(TrainingError, match=message):
        spec_from(widths, labels=(), z_dim=8, w_dim=8, mapping_layers=2, where="g.pt")


def refusal(file: Path) -> str:
    with pytest.raises(OmokageError) as raised:
        import_weights(file, file.parent / "out")
    assert not (file.parent / "out").exists()
    assert [path.name for path in file.parent.iterdir()] == [file.name]
    return str(raised.value)


def changed(tmp_path: Path, **changes: Tensor | None) -> str:
    """Returns the refusal of a rosinality generator with some tensors replaced or left out."""
    state = dict(rosinality.small().state_dict())
    for name, tensor in changes.items():
        state.pop(name, None)
        if tensor is not None:
            state[name] = tensor
    return refusal(rosinality.save(tmp_path / "g.pt", {"g_ema": state}))


@pytest.mark.parametrize(
    ("name", "tensor", "message"),
    [
        ("conv1.activate.bias", None, "conv1.activate.bias is missing"),
        ("noises.noise_3", None, "noises.noise_3 is missing"),
        ("extra.weight", torch.ones(2), "extra.weight is unknown"),
        ("input.input", torch.ones(1, 5, 4, 4), r"input.input is [1, 5, 4, 4], [1, 12, 4, 4] want"),
        ("style.2.bias", torch.full((8,), torch.nan), "style.2.bias holds numbers that are not f"),
        ("style.2.bias", torch.full((8,), torch.inf), "style.2.bias holds numbers that are not f"),
        ("style.2.bias", torch.ones(8, dtype=torch.int64), "style.2.bias holds int64, floating"),
        ("style.2.weight", None, "the tensors style.N.weight are numbered 1, 3; 1, 2, … wanted"),
        ("to_rgb1.conv.weight", torch.ones(1, 4, 12, 1, 1), "pictures have 4 channels, 3 wanted"),
        ("convs.0.conv.blur.kernel", torch.ones(4, 4), "convs.0.conv.blur.kernel is another filt"),
        ("conv1.conv.weight", torch.ones(12, 12), "conv1.conv.weight is [12, 12]; 5 axes wanted"),
    ],
)
def test_a_rosinality_tensor_that_does_not_fit_is_named(
    tmp_path: Path, name: str, tensor: Tensor | None, message: str
) -> None:
    assert message in changed(tmp_path, **{name: tensor})


@pytest.mark.parametrize(
    ("held", "message"),
    [
        ({"d": {"a": torch.ones(1)}}, "holds no StyleGAN2 generator; g_ema or a generator's state"),
        ({"g": {}, "d": {}}, 'is missing; torch.save({"g_ema": its "g"}, FILE) makes a file of'),
        (
            {"g_ema": {"generator.generator.style.1.weight": torch.ones(1)}},
            'one is under "generator.generator.": save what is there, without that prefix, by',
        ),
        ({"generator.progression.0.conv1.0.weight": torch.ones(1)}, "it is a StyleGAN1"),
        ([1, 2], "holds a list; a checkpoint or state wanted"),
        ({"g_ema": torch.ones(2)}, "g_ema is a StoredTensor; a state wanted"),
        ({"style.1.weight": "text"}, "style.1.weight is a str, a tensor wanted"),
    ],
)
def test_a_file_without_a_rosinality_generator_says_what_it_holds(
    tmp_path: Path, held: object, message: str
) -> None:
    assert message in refusal(rosinality.save(tmp_path / "g.pt", held))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("D", "holds no generator: G_ema is wanted, it holds training_set_kwargs, D"),
        ("G_ema", 'the network "Discriminator" is no generator of StyleGAN2'),
    ],
)
def test_an_nvidia_discriminator_alone_is_refused(tmp_path: Path, name: str, message: str) -> None:
    assert message in refusal(nvidia.save(tmp_path / "g.pkl", **{name: nvidia.Discriminator()}))


def test_a_state_dict_as_g_ema_is_refused_for_what_it_is(tmp_path: Path) -> None:
    message = refusal(nvidia.save(tmp_path / "g.pkl", G_ema=nvidia.small().state_dict()))
    assert 'G_ema is a dict, a network wanted; pickle the network itself: {"G_ema": G}' in message


def test_dtypes_among_the_settings_are_plain_values(tmp_path: Path) -> None:
    theirs = nvidia.small()
    held = {"G_ema": theirs, "augment": {"dtype": torch.float16, "other": torch.int64}}
    ours = imported(nvidia.save(tmp_path / "g.pkl", **held))
    assert apart(ours(z_of(8), NONE), theirs(z_of(8), NONE)) < CLOSE


def test_a_foreign_discriminator_is_refused_with_the_way_out(tmp_path: Path) -> None:
    theirs = nvidia.small()
    foreign = torch.nn.Sequential(torch.nn.Linear(2, 2))
    message = refusal(nvidia.save(tmp_path / "g.pkl", D=foreign, G_ema=theirs))
    assert "asks for torch.nn.modules.container.Sequential, which is no tensor" in message
    assert 'save the generator alone, where the file was made: {"G_ema": G_ema}' in message
    (tmp_path / "g.pkl").unlink()
    ours = imported(nvidia.save(tmp_path / "alone.pkl", G_ema=theirs))
    assert apart(ours(z_of(8), NONE), theirs(z_of(8), NONE)) < CLOSE


def parameter(*shape: int) -> torch.nn.Parameter:
    return torch.nn.Parameter(torch.ones(*shape))


CONV = "synthesis.b16.conv0"


@pytest.mark.parametrize(
    ("layer", "changes", "message"),
    [
        ("synthesis.b8", {"architecture": "orig"}, 'b8 has the architecture "orig", "skip" wanted'),
        ("synthesis.b8", {"architecture": "resnet"}, 'architecture "resnet", "skip" wanted'),
        (
            "synthesis",
            {"input": nvidia.FullyConnectedLayer(2, 2)},
            "holds an alias-free generator (StyleGAN3); one of StyleGAN2 wanted",
        ),
        (CONV, {"activation": "swish"}, f'{CONV} has the activation "swish", "lrelu" wanted'),
        (CONV, {"conv_clamp": 256}, f"and 256 in {CONV}; one for all layers wanted"),
        (CONV, {"conv_clamp": -1}, f"{CONV} has an odd conv_clamp; None or a number above"),
        (CONV, {"conv_clamp": 1 << 20_000}, f"{CONV} has an odd conv_clamp; None or a num"),
        (CONV, {"bias": parameter(9)}, f"{CONV}.bias is [9], [6] wanted"),
        (CONV, {"noise_strength": None}, f"{CONV}.noise_strength is missing"),
        (
            "synthesis.b4.torgb",
            {"weight": parameter(4, 12, 1, 1)},
            "its pictures have 4 channels, 3 wanted",
        ),
    ],
)
def test_an_nvidia_generator_of_another_kind_is_refused(
    tmp_path: Path, layer: str, changes: dict[str, Any], message: str
) -> None:
    theirs = nvidia.with_changes(layer, **changes)
    assert message in refusal(nvidia.save(tmp_path / "g.pkl", G_ema=theirs))
