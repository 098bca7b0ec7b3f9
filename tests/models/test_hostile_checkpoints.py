"""Generators and checkpoints of unknown origin: refused by name, nothing in them is run."""

import copy
import dataclasses
import hashlib
import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from dataset.errors import ConfigError, OmokageError, TrainingError
from dataset.store import Store
from models import sample, train
from models.io.generators import load_generator, typical_rows
from models.training.checkpoint import facts_of, finished, prune
from models.training.data import TrainingSet
from tests.hypothesis_profiles import examples
from tests.models.small_generators import NAMES, small_generator, write_checkpoint, write_generator
from tests.models.trainings import SMOKE, trained

Change = Callable[[Any], Any]
LONGER = dataclasses.replace(SMOKE, total_kimg=0.06, snapshot_kimg=0.06)


class Running:
    """Unpickled, it leaves a file behind."""

    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.canary),)


def rewritten(path: Path, change: Change) -> None:
    """Changes a JSON file."""
    path.write_text(json.dumps(change(json.loads(path.read_text()))))


def with_tensors(folder: Path, change: Callable[[dict[str, Tensor]], object]) -> None:
    """Changes a checkpoint's tensors in place, and its sha256 with them."""
    path = folder / "state.safetensors"
    tensors = safetensors.torch.load_file(path)
    change(tensors)
    path.write_bytes(safetensors.torch.save(tensors))
    sealed(folder)


def sealed(folder: Path) -> None:
    sha256 = hashlib.sha256((folder / "state.safetensors").read_bytes()).hexdigest()
    rewritten(folder / "state.json", lambda state: state | {"sha256": sha256})


def with_header(text: bytes, length: int | None = None) -> bytes:
    return (len(text) if length is None else length).to_bytes(8, "little") + text + bytes(64)


NO_SAFETENSORS = {
    "empty": b"",
    "cut": safetensors.torch.save({"a": torch.zeros(99)})[:-100],
    "short": b"\x01\x02",
    "pictures": b"\x89PNG\r\n\x1a\n" + bytes(100),
    "header_of_exabytes": with_header(b"{}", 2**63),
    "header_beyond_the_end": with_header(b"{}", 1000),
    "no_json": with_header(b"not json"),
    "a_list": with_header(b"[]"),
    "nested": with_header(b"[" * 100_000),
    "unknown_dtype": with_header(b'{"a":{"dtype":"Q8","shape":[1],"data_offsets":[0,1]}}'),
    "beyond_the_end": with_header(b'{"a":{"dtype":"F32","shape":[99],"data_offsets":[0,396]}}'),
    "misfit": with_header(b'{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,64]}}'),
    "huge": with_header(
        b'{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,64]}}'
    ),
    "overlapping": with_header(
        b'{"a":{"dtype":"F32","shape":[16],"data_offsets":[0,64]},'
        b'"b":{"dtype":"F32","shape":[16],"data_offsets":[0,64]}}'
    ),
}


# Files that are no safetensors


@pytest.mark.parametrize("protocol", [0, 2, 5])
def test_a_pickle_under_the_name_of_weights_is_never_run(
    tmp_path: Path, reals: TrainingSet, run_of: Path, protocol: int
) -> None:
    canary = tmp_path / "canary"
    content = pickle.dumps(Running(canary), protocol=protocol)
    pickle.loads(content)
    assert canary.exists()  # it would
    canary.rmdir()

    folder = write_generator(tmp_path / "it", small_generator("dcgan64"))
    (tmp_path / "it/generator.safetensors").write_bytes(content)
    with pytest.raises(TrainingError, match=r"generator\.safetensors is no whole safetensors file"):
        load_generator(folder)
    torch.save({"weights": Running(canary)}, tmp_path / "it/generator.safetensors")
    with pytest.raises(TrainingError, match=r"generator\.safetensors is no whole safetensors file"):
        load_generator(folder)

    place = copied(run_of, tmp_path)
    (place / "state.safetensors").write_bytes(content)
    sealed(place)
    with pytest.raises(TrainingError, match=r"state\.safetensors is no whole safetensors file"):
        trained(tmp_path, reals, LONGER)
    with pytest.raises(TrainingError, match=r"state\.safetensors is no whole safetensors file"):
        load_generator(str(place))
    for name in ("spec.json", "typical_labels.json"):
        (tmp_path / "it" / name).write_bytes(content)
        with pytest.raises(TrainingError, match=f"{name} is not JSON"):
            typical_rows(folder, NAMES) if name[0] == "t" else load_generator(folder)
    assert not canary.exists()


@pytest.mark.parametrize("content", NO_SAFETENSORS.values(), ids=NO_SAFETENSORS)
def test_what_is_no_safetensors_is_named(tmp_path: Path, content: bytes) -> None:
    folder = write_generator(tmp_path / "it", small_generator("dcgan64"))
    (tmp_path / "it/generator.safetensors").write_bytes(content)
    with pytest.raises(
        TrainingError, match=r"it/generator\.safetensors (is no whole|does not fit)"
    ):
        load_generator(folder)
    checkpoint = write_checkpoint(tmp_path / "checkpoint", small_generator("dcgan64"))
    (tmp_path / "checkpoint/state.safetensors").write_bytes(content)
    sealed(tmp_path / "checkpoint")
    with pytest.raises(TrainingError, match=r"state\.safetensors (is no whole|does not fit)"):
        load_generator(checkpoint)


# Weights and specs that do not fit each other

WEIGHTS: dict[str, tuple[Callable[[dict[str, Tensor]], object], str]] = {
    "missing": (lambda t: t.pop("dense.bias"), "dense.bias is missing"),
    "unknown": (lambda t: t.update(more=torch.zeros(1)), "more is unknown"),
    "control": (lambda t: t.update({"\x1b[2J": torch.zeros(1)}), r"\?\[2J is unknown"),
    "long": (lambda t: t.update({"x" * 9999: torch.zeros(1)}), "x{80}… is unknown"),
    "shape": (
        lambda t: t.update({"dense.bias": torch.zeros(3)}),
        r"dense.bias is float32 \[3\], float32 \[135\] wanted",
    ),
    "dtype": (lambda t: t.update({"dense.bias": t["dense.bias"].double()}), "is float64"),
    "nan": (lambda t: t["dense.bias"].fill_(torch.nan), "dense.bias holds numbers that are not"),
}


@pytest.mark.parametrize(("change", "message"), WEIGHTS.values(), ids=WEIGHTS)
def test_weights_that_do_not_fit_their_spec_are_named(
    tmp_path: Path, change: Callable[[dict[str, Tensor]], object], message: str
) -> None:
    made = small_generator("dcgan64")
    folder = write_generator(tmp_path / "it", made)
    tensors = {name: tensor.clone() for name, tensor in made.state_dict().items()}
    change(tensors)
    safetensors.torch.save_file(tensors, tmp_path / "it/generator.safetensors")
    with pytest.raises(TrainingError, match=message) as caught:
        load_generator(folder)
    assert str(caught.value).startswith(f"{folder}/generator.safetensors does not fit spec.json")


SPECS: dict[str, tuple[str, dict[str, Any], str]] = {
    "fewer_labels": ("dcgan64", {"labels": ["one"]}, r"embed.weight is float32 \[64, 3\]"),
    "no_labels": ("dcgan64", {"labels": []}, "embed.weight is"),
    "double_labels": ("dcgan64", {"labels": ["a", "a", "b"]}, r"labels is \['a', 'a', 'b'\]"),
    "numbers_for_labels": ("dcgan64", {"labels": [1, 2, 3]}, r"labels is \[1, 2, 3\]"),
    "text_for_labels": ("dcgan64", {"labels": "abc"}, "labels is 'abc'"),
    "null_for_labels": ("dcgan64", {"labels": None}, "labels is None"),
    "control_in_labels": ("dcgan64", {"labels": ["\x1b[2J", "b", "c"]}, "labels is "),
    "many_labels": ("dcgan64", {"labels": list(map(str, range(99_999)))}, "a list of 99,999"),
    "family": ("dcgan64", {"family": "stylegan3"}, ': unknown family "stylegan3"; did'),
    "module_for_family": ("dcgan64", {"family": "os.system"}, 'unknown family "os.system"'),
    "other_family": ("dcgan64", {"family": "stylegan2"}, "stylegan2 has"),
    "resolutions": ("stylegan2", {"resolution_px": 65_536}, "resolution_px is 65536; stylegan2 dr"),
    "base": ("stylegan2", {"channel_base": 2**20, "channel_max": 2**20}, "float32"),
    "more_than_base": ("stylegan2", {"channel_base": 2**40}, "channel_base is 1099511627776"),
    "no_channels": (
        "stylegan2",
        {"channel_max": 0},
        "channel_max is 0; stylegan2 needs at least 1",
    ),
    "mapping": ("stylegan2", {"mapping_layers": 10**6}, "mapping_layers is 1000000, a whole"),
    "w": ("stylegan2", {"w_dim": 2**20}, "float32"),
    "z": ("stylegan2", {"z_dim": 65_536}, "float32"),
    "blocks": ("dcgan64", {"blocks": 10**6}, "blocks is 1000000"),
    "w_of_none": ("dcgan64", {"can_w": True, "w_dim": 8}, "can_w is True; dcgan64 has False"),
    "no_w": ("stylegan2", {"can_w": False}, "can_w is False; stylegan2 has True"),
    "clamp": ("stylegan2", {"conv_clamp": -256}, "conv_clamp is -256, a number from 0 to"),
    "nan_clamp": ("stylegan2", {"conv_clamp": float("nan")}, "conv_clamp is nan"),
    "clamp_of_none": ("dcgan64", {"conv_clamp": 256}, "conv_clamp is 256.0; dcgan64 has 0.0"),
    "width": ("dcgan64", {"width": 16}, "float32"),
    "nan_width": ("dcgan64", {"width": float("nan")}, "width is nan"),
    "negative": ("dcgan64", {"z_dim": -1}, "z_dim is -1"),
    "digits": ("dcgan64", {"z_dim": 10**4000}, "z_dim is a number of 13,288 bits"),
    "true_for_a_number": ("dcgan64", {"z_dim": True}, "z_dim is True"),
    "wide": (
        "dcgan64",
        {"width": 1e9},
        "width is 1000000000.0, a number above 0 and up to 16 want",
    ),
    "distribution": ("dcgan64", {"z_dist": "cauchy"}, "z_dist is 'cauchy', one of normal, uniform"),
    "unknown": ("dcgan64", {"__class__": "x"}, '"__class__" is unknown'),
    "misspelt": ("dcgan64", {"z_dmi": 3}, '"z_dmi" is unknown; did you mean "z_dim"?'),
}


@pytest.mark.parametrize(("family", "fields", "message"), SPECS.values(), ids=SPECS)
def test_a_spec_that_the_weights_do_not_fit_is_named(
    tmp_path: Path, family: str, fields: dict[str, Any], message: str
) -> None:
    folder = write_generator(tmp_path / "it", small_generator(family))
    rewritten(tmp_path / "it/spec.json", lambda spec: spec | fields)
    with pytest.raises(TrainingError, match=message) as caught:
        load_generator(folder)
    assert str(caught.value).startswith(folder)
    assert "spec.json" in str(caught.value)
    assert len(str(caught.value)) < 2500
    checkpoint = write_checkpoint(tmp_path / "checkpoint", small_generator(family))
    rewritten(tmp_path / "checkpoint/state.json", lambda s: s | {"spec": s["spec"] | fields})
    with pytest.raises(TrainingError, match=message) as caught:
        load_generator(checkpoint)
    assert "state.json" in str(caught.value)


MEASURED = """
import json, resource, sys
from pathlib import Path
from dataset.errors import TrainingError
from models.io.generators import load_generator
load_generator(sys.argv[1])
spec = Path(sys.argv[1], "spec.json")
good = json.loads(spec.read_text())
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
for fields in json.loads(sys.argv[2]):
    spec.write_text(json.dumps(good | fields))
    try:
        load_generator(sys.argv[1])
    except TrainingError:
        continue
    sys.exit(f"{fields} was taken")
grown_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
print(grown_kb / 1024)
"""


@pytest.mark.ci
def test_absurd_sizes_take_no_memory(tmp_path: Path) -> None:
    folder = write_generator(tmp_path / "it", small_generator("stylegan2"))
    absurd = [
        {"channel_base": 2**20, "channel_max": 2**20, "resolution_px": 1024},
        {"channel_base": 2**20, "channel_max": 65_536, "w_dim": 65_536, "mapping_layers": 64},
        {"mapping_layers": 10**6},
        {"resolution_px": 65_536},
        {"w_dim": 2**20, "z_dim": 65_536},
    ]
    ended = subprocess.run(
        [sys.executable, "-c", MEASURED, folder, json.dumps(absurd)],
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    assert float(ended.stdout) < 150


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([["pink_hair"]], 'names labels that the generator does not know: "pink_hair"'),
        ([["\x1b[2J"]], r'does not know: "\?\[2J"'),
        ([], "a list of 1 to 4,096 lists"),
        ([["blonde_hair", "blonde_hair"]], "lists of different labels"),
        ([[1]], "lists of different labels"),
        ([{"blonde_hair": 1}], "lists of different labels"),
        (["blonde_hair"], "lists of different labels"),
        ({"rows": []}, "lists of different labels"),
        (None, "lists of different labels"),
        ([[]] * 5000, "a list of 1 to 4,096 lists"),
    ],
)
def test_typical_labels_that_are_none_are_named(tmp_path: Path, rows: Any, message: str) -> None:
    folder = write_generator(tmp_path / "it", small_generator("dcgan64"))
    (tmp_path / "it/typical_labels.json").write_text(json.dumps(rows))
    with pytest.raises(TrainingError, match=message) as caught:
        typical_rows(folder, NAMES)
    assert str(caught.value).startswith(f"{folder}/typical_labels.json")


# Where files lie


def test_links_may_not_lead_out_of_the_folder(tmp_path: Path) -> None:
    made = small_generator("dcgan64")
    elsewhere = Path(write_generator(tmp_path / "elsewhere", made))
    for name in ("generator.safetensors", "spec.json", "typical_labels.json"):
        folder = write_generator(tmp_path / f"with-{name}", made)
        (Path(folder) / name).unlink()
        (Path(folder) / name).symlink_to(elsewhere / name)
        with pytest.raises(TrainingError, match=f"{name} is a link that leads out of"):
            typical_rows(folder, NAMES) if name[0] == "t" else load_generator(folder)
    linked = tmp_path / "linked"
    linked.symlink_to(elsewhere)  # one's own link to a whole folder is fine
    assert load_generator(str(linked)).spec == made.spec

    training = tmp_path / "training"
    (training / "checkpoints").mkdir(parents=True)
    write_checkpoint(tmp_path / "far", made)
    (training / "checkpoints/0000000100").symlink_to(tmp_path / "far")
    with pytest.raises(TrainingError, match=r"state\.json is a link that leads out of"):
        load_generator(str(training))


@pytest.mark.skipif(not Path("/dev/zero").exists(), reason="this system has no /dev/zero")
def test_a_device_a_pipe_or_a_circle_is_not_read(tmp_path: Path) -> None:
    folder = write_generator(tmp_path / "it", small_generator("dcgan64"))
    weights = tmp_path / "it/generator.safetensors"
    weights.unlink()
    weights.symlink_to("/dev/zero")
    with pytest.raises(TrainingError, match=r"generator\.safetensors is a link that leads out"):
        load_generator(folder)
    weights.unlink()
    os.mkfifo(weights)
    with pytest.raises(TrainingError, match=r"generator\.safetensors is no plain file"):
        load_generator(folder)
    weights.unlink()
    weights.symlink_to(weights)
    with pytest.raises(OmokageError, match=r"generator\.safetensors"):
        load_generator(folder)


def test_a_checkpoint_that_is_a_link_is_left_alone(tmp_path: Path, run_of: Path) -> None:
    place = copied(run_of, tmp_path)
    outside = tmp_path / "outside"
    shutil.move(place, outside)
    place.symlink_to(outside)
    for number in (80, 120):
        shutil.copytree(outside, place.with_name(f"{number:010d}"))
    with pytest.raises(TrainingError, match=r"0000000040/state\.json is a link that leads out"):
        prune(Store(tmp_path), "run/checkpoints", keep=1)
    assert (outside / "state.json").exists()


def test_only_folders_named_by_pictures_are_checkpoints(tmp_path: Path) -> None:
    names = ["0000000040", "10000000000", "0000000040/0000000050", "zzz", "１２３４５６７８９０"]
    for name in (*names, "..0000000040", "0000000090.old"):
        write_checkpoint(tmp_path / "checkpoints" / name, small_generator("dcgan64"))
    (tmp_path / "checkpoints/around").symlink_to(tmp_path)
    found = finished(Store(tmp_path), "checkpoints")
    assert found == ["checkpoints/0000000040", "checkpoints/10000000000"]


@pytest.mark.parametrize("place", ["../..", "nowhere", "/dev/null", "foo://bar", "it/spec.json"])
def test_a_place_without_a_generator_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], place: str
) -> None:
    write_generator(tmp_path / "it", small_generator("dcgan64"))
    (tmp_path / "a/b").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "a/b" if place[0] == "." else tmp_path)
    out = tmp_path / "grid.png"
    assert sample.main(["--generator", place, "--out", str(out)]) in (2, 5)
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert message.count("\n") == 1
    assert not out.exists()


@pytest.mark.parametrize("option", ["--out", "--continue-from"])
@pytest.mark.parametrize("folder", ["../out", "runs/../../out", "/etc/out"])
def test_a_training_stays_in_its_home(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], option: str, folder: str
) -> None:
    words = ["--home", str(tmp_path), "--preset", "smoke", "--out", "runs/one", option, folder]
    assert train.main(words) == 2
    assert f'{option} is "{folder}"; a folder under the home wanted' in capsys.readouterr().err


# Going on with a training


@pytest.fixture(scope="module")
def run_of(tmp_path_factory: pytest.TempPathFactory, reals: TrainingSet) -> Path:
    """The folder of a training's only checkpoint, of 40 pictures."""
    home = tmp_path_factory.mktemp("trained")
    trained(home, reals, dataclasses.replace(SMOKE, total_kimg=0.04))
    return home / "run/checkpoints/0000000040"


def copied(place: Path, home: Path) -> Path:
    """Copies the training of a checkpoint into a home; returns the checkpoint there."""
    shutil.copytree(place.parent.parent, home / "run")
    return home / "run/checkpoints" / place.name


STATES: dict[str, tuple[Callable[[dict[str, Tensor]], object], str]] = {
    "network": (lambda t: t["D.dense.bias"].fill_(torch.nan), "D.dense.bias holds numbers"),
    "no_network": (
        lambda t: [t.pop(n) for n in [*t] if n[:2] == "D."],
        "D.conv1.weight is missing",
    ),
    "prefix": (lambda t: t.update({"H.x": torch.zeros(1)}), "H.x is unknown"),
    "beyond": (lambda t: t.update({"opt_g.99.step": torch.zeros(())}), "opt_g.99.step is unknown"),
    "no_moment": (lambda t: t.pop("opt_d.0.exp_avg"), "opt_d.0.exp_avg is missing"),
    "moment_shape": (
        lambda t: t.update({"opt_d.0.exp_avg": torch.zeros(2)}),
        r"opt_d.0.exp_avg is float32 \[2\]",
    ),
    "moment_nan": (lambda t: t["opt_d.0.exp_avg_sq"].fill_(torch.nan), "opt_d.0.exp_avg_sq holds"),
    "step_kind": (
        lambda t: t.update({"opt_d.0.step": torch.zeros((), dtype=torch.int64)}),
        "opt_d.0.step is int64",
    ),
    "steering": (lambda t: t.pop("steering.aug_p"), "steering.aug_p is missing"),
    "rng": (lambda t: t.pop("rng.own"), "rng.own is missing"),
    "rng_kind": (
        lambda t: t.update({"rng.own": torch.zeros(5056)}),
        "rng.own is no state of a source of random numbers",
    ),
    "rng_size": (
        lambda t: t.update({"rng.cpu": torch.zeros(16, dtype=torch.uint8)}),
        "rng.cpu is no state",
    ),
    "rng_content": (lambda t: t["rng.cpu"].fill_(255), "rng.cpu is no state"),
    "rng_more": (lambda t: t.update({"rng.more": torch.zeros(1)}), "rng.more is unknown"),
}


@pytest.mark.parametrize(("change", "message"), STATES.values(), ids=STATES)
def test_a_state_that_the_training_does_not_fit_is_named(
    tmp_path: Path,
    reals: TrainingSet,
    run_of: Path,
    change: Callable[[dict[str, Tensor]], object],
    message: str,
) -> None:
    place = copied(run_of, tmp_path)
    with_tensors(place, change)
    before = torch.get_rng_state()
    with pytest.raises(TrainingError, match=message) as caught:
        trained(tmp_path, reals, LONGER)
    assert str(caught.value).startswith(f"{place}/state.safetensors")
    assert "Remove that folder to go on" in str(caught.value)
    torch.set_rng_state(before)


FACTS: dict[str, tuple[dict[str, Any], str]] = {
    "step_text": ({"step": "5"}, "step is '5', a whole number from 0 wanted"),
    "step_negative": ({"step": -1}, "step is -1"),
    "step_true": ({"step": True}, "step is True"),
    "step_digits": ({"step": 10**4000}, "step is a number of 13,288 bits"),
    "seconds_text": ({"seconds": "long"}, "seconds is 'long', a number from 0 wanted"),
    "seconds_nan": ({"seconds": float("nan")}, "seconds is nan"),
    "seconds_infinite": ({"seconds": float("inf")}, "seconds is inf"),
    "sha256_short": ({"sha256": "abc"}, "sha256 is 'abc'"),
    "config_list": ({"config": []}, r"config is \[\], an object wanted"),
    "manifest": ({"manifest_digest": ["x"]}, r"manifest_digest is \['x'\]"),
    "spec_list": ({"spec": []}, r"spec is \[\]"),
    "spec_empty": ({"spec": {}}, "state.json, spec describes no generator"),
    "origin": ({"origin": {"step": 1}}, "origin is {'step': 1}"),
    "origin_step": (
        {"origin": {"step": "1", "folder": "x", "images_seen": 1, "manifest_digest": "x"}},
        "origin is",
    ),
    "score": ({"score": "best"}, "score is 'best', a number or null wanted"),
    "other_settings": ({"config": {}}, "holds another training: family was None, now 'dcgan64'"),
}


@pytest.mark.parametrize(("fields", "message"), FACTS.values(), ids=FACTS)
def test_facts_of_another_kind_are_named(
    tmp_path: Path, reals: TrainingSet, run_of: Path, fields: dict[str, Any], message: str
) -> None:
    place = copied(run_of, tmp_path)
    rewritten(place / "state.json", lambda state: state | fields)
    with pytest.raises(TrainingError, match=message) as caught:
        trained(tmp_path, reals, LONGER)
    assert str(tmp_path / "run") in str(caught.value)


def test_a_spec_that_is_not_the_settings_is_refused(
    tmp_path: Path, reals: TrainingSet, run_of: Path
) -> None:
    place = copied(run_of, tmp_path)
    labels = json.loads((place / "state.json").read_text())["spec"]["labels"]
    turned = [*labels[1:], labels[0]]  # as many, so that all weights would fit
    rewritten(place / "state.json", lambda s: s | {"spec": s["spec"] | {"labels": turned}})
    with pytest.raises(TrainingError, match=r"state\.json, spec is of another generator"):
        trained(tmp_path, reals, LONGER)


FINISHED: dict[str, tuple[Change, str]] = {
    "list": (lambda _facts: [], "a JSON object is wanted"),
    "no_config": (lambda facts: {"samples": facts["samples"]}, "config is missing"),
    "samples_out": (lambda f: f | {"samples": "../../etc/passwd"}, "samples is '../../etc/passwd'"),
    "samples_up": (
        lambda f: f | {"samples": "run/../../x/samples/0000000040.png"},
        "the path of a sheet in samples/ wanted",
    ),
    "samples_absolute": (
        lambda f: f | {"samples": "/x/samples/0000000040.png"},
        "samples is '/x/samples/0000000040.png'",
    ),
    "seconds": (lambda f: f | {"train_seconds": None}, "train_seconds is None"),
    "origin": (lambda f: f | {"origin": 5}, "origin is 5"),
}


@pytest.mark.parametrize(("change", "message"), FINISHED.values(), ids=FINISHED)
def test_a_finished_trainings_facts_are_checked(
    tmp_path: Path, reals: TrainingSet, run_of: Path, change: Change, message: str
) -> None:
    copied(run_of, tmp_path)
    path = tmp_path / "run/generator/train.json"
    rewritten(path, change)
    with pytest.raises(TrainingError, match=message) as caught:
        trained(tmp_path, reals, dataclasses.replace(SMOKE, total_kimg=0.04))
    assert str(caught.value).startswith(f"{path} is no finished training's")


def test_damaged_lines_of_progress_are_named(
    tmp_path: Path, reals: TrainingSet, run_of: Path
) -> None:
    copied(run_of, tmp_path)
    path = tmp_path / "run/progress.jsonl"
    path.write_bytes(path.read_bytes() + b'{"images_seen": "many"}\n')
    with pytest.raises(
        TrainingError, match=r"progress\.jsonl, line 2: expected a JSON object with"
    ):
        trained(tmp_path, reals, LONGER)


@pytest.mark.parametrize("label", ["left_eye_closed", "ahoge_right"])
def test_flips_are_refused_where_a_label_tells_left_from_right(
    tmp_path: Path, reals: TrainingSet, label: str
) -> None:
    names = (*reals.label_names[:-1], label)
    sided = dataclasses.replace(reals, label_names=names)
    with pytest.raises(ConfigError, match=rf"{label} tells left from right.*Set flip=false\."):
        trained(tmp_path, sided)
    config = dataclasses.replace(SMOKE, flip=False, total_kimg=0.01)
    assert trained(tmp_path, sided, config)["images_seen"] == 16


# Anything at all

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=5,
)
SPEC = small_generator("stylegan2").spec.to_json()
STATE_KEYS = [
    *("step", "seconds", "images_seen", "sha256", "config", "manifest_digest", "spec"),
    *("origin", "score", "typical_labels"),
]
QUICKLY = settings(
    max_examples=examples(60),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("small")
    write_generator(root / "generator", small_generator("stylegan2"))
    write_checkpoint(root / "checkpoint", small_generator("stylegan2"))
    return root


def refusal(folder: Path) -> str:
    """Why a generator's folder is refused, in the error's words; "" if it loads whole."""
    try:
        network = load_generator(str(folder))
        rows = typical_rows(str(folder), network.spec.labels)
    except OmokageError as error:
        return str(error)
    assert rows.shape[1] == len(network.spec.labels)
    return ""


def is_short_and_names(message: str, *files: str) -> bool:
    """Whether a refusal, if it is one, names one of these files and stays short."""
    return not message or (any(name in message for name in files) and len(message) < 5000)


@QUICKLY
@given(name=st.sampled_from([*SPEC, "conv_clamp", "more"]), value=JSON | st.integers(-2, 2**24))
def test_any_value_in_a_spec_loads_or_is_refused(small: Path, name: str, value: Any) -> None:
    folder = small / "generator"
    (folder / "spec.json").write_text(json.dumps(SPEC | {name: value}))
    assert is_short_and_names(refusal(folder), "spec.json", "typical_labels.json")


@QUICKLY
@given(name=st.sampled_from(STATE_KEYS), value=JSON)
def test_any_value_in_a_state_loads_or_is_refused(small: Path, name: str, value: Any) -> None:
    folder = small / "checkpoint"
    path = folder / "state.json"
    good = path.read_text()
    try:
        path.write_text(json.dumps(json.loads(good) | {name: value}))
        assert is_short_and_names(refusal(folder), "state.json", "state.safetensors")
    finally:
        path.write_text(good)


@QUICKLY
@given(name=st.sampled_from(STATE_KEYS), value=JSON)
def test_any_value_in_a_trainings_state_is_read_or_refused(
    small: Path, run_of: Path, name: str, value: Any
) -> None:
    facts = json.loads((run_of / "state.json").read_text())
    (small / "checkpoints/0000000040").mkdir(parents=True, exist_ok=True)
    changed = copy.deepcopy(facts) | {name: value}
    (small / "checkpoints/0000000040/state.json").write_text(json.dumps(changed))
    try:
        read = facts_of(Store(small), "checkpoints/0000000040")
        message = json.dumps(read)
    except OmokageError as error:
        message = str(error)
    assert name in message


@QUICKLY
@given(content=st.binary(max_size=60) | st.text(max_size=60).map(str.encode))
def test_any_bytes_for_a_spec_are_refused(small: Path, content: bytes) -> None:
    folder = small / "generator"
    (folder / "spec.json").write_bytes(content)
    with pytest.raises(OmokageError):
        load_generator(str(folder))


@QUICKLY
@given(place=st.integers(0, 3000), byte=st.integers(0, 255))
def test_any_byte_in_the_weights_loads_or_is_refused(small: Path, place: int, byte: int) -> None:
    folder = small / "generator"
    (folder / "spec.json").write_text(json.dumps(SPEC))
    path = folder / "generator.safetensors"
    good = path.read_bytes()
    bad = bytearray(good)
    bad[place] = byte
    try:
        path.write_bytes(bad)
        assert is_short_and_names(refusal(folder), "generator.safetensors")
    finally:
        path.write_bytes(good)
