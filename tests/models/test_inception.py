"""The standard Inception network, here with random weights in the layout of the standard file."""

import dataclasses
import hashlib
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset

from dataset.errors import ConfigError, TrainingError
from models.metrics import extractors
from models.metrics.distances import frechet_distance, kernel_distance, statistics
from models.metrics.download import PinnedFile
from models.metrics.extractors import chunks, efficientnet_lite0, efficientnet_lite2, extractor
from models.metrics.neighbours import overlap
from tests.models.drawn_heads import drawn_heads

# Half of the fakes are noise, so that all the numbers are well away from 0.
REALS, _ = drawn_heads(6, seed=1, side_px=40)
FAKES, _ = drawn_heads(6, seed=2, side_px=40)
FAKES[3:] = np.random.default_rng(3).integers(0, 256, size=FAKES[3:].shape, dtype=np.uint8)


def pinned_as(path: Path) -> PinnedFile:
    """Returns the description of a file that lies at `path`."""
    content = path.read_bytes()
    return PinnedFile(
        url=f"https://files.example/{path.name}",
        sha256=hashlib.sha256(content).hexdigest(),
        size_bytes=len(content),
        hosts=frozenset({"files.example"}),
    )


class Pictures(Dataset[Tensor]):
    """uint8 pictures as torch-fidelity takes them, [3,H,W] each."""

    def __init__(self, pictures: npt.NDArray[np.uint8]) -> None:
        self._pictures = torch.from_numpy(pictures.transpose(0, 3, 1, 2).copy())

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, number: int) -> Tensor:
        return self._pictures[number]


@pytest.fixture(scope="module")
def random_weights(tmp_path_factory: pytest.TempPathFactory, torchvision_operators: None) -> Path:
    """Returns a file of random weights, drawn so that features neither vanish nor burst."""
    from torch_fidelity import feature_extractor_inceptionv3 as theirs

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(theirs, "load_state_dict_from_url", lambda *_, **__: {})
        patch.setattr(theirs.FeatureExtractorInceptionV3, "load_state_dict", lambda *_: None)
        network = theirs.FeatureExtractorInceptionV3("inception-v3-compat", ["2048"])
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
    for name, weight in network.named_parameters():
        if name.startswith("Mixed_7c") and name.endswith("bn.weight"):
            nn.init.constant_(weight, 6)  # the last layer's: features as large as the real ones
    path = tmp_path_factory.mktemp("inception") / "random.pth"
    # In torch's older form, which published weights of those years have
    torch.save(network.state_dict(), path, _use_new_zipfile_serialization=False)
    return path


@pytest.mark.slow
def test_fid_kid_precision_and_recall_are_those_of_torch_fidelity(
    random_weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch_fidelity import calculate_metrics

    monkeypatch.setattr(extractors, "INCEPTION_WEIGHTS", pinned_as(random_weights))
    network = extractor("inception", weights=str(random_weights))
    fakes, reals = network(chunks(FAKES)), network(chunks(REALS))
    precision, recall, _ = overlap(reals, fakes)
    ours = {
        "frechet_inception_distance": frechet_distance(statistics(fakes), statistics(reals)),
        "kernel_inception_distance_mean": kernel_distance(fakes, reals).value,
        "precision": precision,
        "recall": recall,
    }
    theirs = calculate_metrics(
        input1=Pictures(FAKES), input2=Pictures(REALS), fid=True, kid=True, prc=True,
        kid_subsets=1, kid_subset_size=len(REALS), feature_extractor="inception-v3-compat",
        feature_extractor_weights_path=str(random_weights),
        cuda=False, cache=False, verbose=False, save_cpu_ram=True,
    )  # fmt: skip
    assert fakes.shape == (len(FAKES), 2048)
    assert (network.metric, network.kernel_metric) == ("fid", "kid")
    assert min(ours.values()) > 0.1
    for name, value in ours.items():
        assert value == pytest.approx(theirs[name], rel=1e-3), name


def test_names_say_whose_features_a_distance_is_on() -> None:
    offline = efficientnet_lite0()
    assert (offline.metric, offline.kernel_metric) == (
        "fd_efficientnet_lite0",
        "kd_efficientnet_lite0",
    )
    second = efficientnet_lite2()
    assert second.metric == "fd_efficientnet_lite2"
    assert second.sha256 != offline.sha256
    features = second([FAKES[:2]])
    assert features.shape == (2, second.features)
    assert not np.allclose(features, offline([FAKES[:2]]))
    other = dataclasses.replace(offline, name="inception")  # by name alone it is not the standard
    assert (other.metric, other.kernel_metric) == ("fd_inception", "kd_inception")


@pytest.mark.usefixtures("torchvision_operators")
def test_another_file_is_refused_with_both_digests(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(b"other weights")
    with pytest.raises(TrainingError) as refused:
        extractor("inception", weights=str(path))
    assert "13 bytes" in str(refused.value)
    assert "95,628,359" in str(refused.value)
    assert extractors.INCEPTION_WEIGHTS.sha256 in str(refused.value)
    assert pinned_as(path).sha256 in str(refused.value)
    with pytest.raises(TrainingError, match=r"absent\.pth cannot be read: No such file"):
        extractor("inception", weights=str(tmp_path / "absent.pth"))


@pytest.mark.usefixtures("torchvision_operators")
def test_without_a_path_or_a_cache_both_are_named() -> None:
    with pytest.raises(ConfigError, match="give the path of weights-inception-2015-12-05"):
        extractor("inception")


class Runs:
    """Unpickled, it would make a file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def __reduce__(self) -> Any:
        return Path.touch, (self._path,)


@pytest.mark.usefixtures("torchvision_operators")
@pytest.mark.parametrize("held", ["program", "list", "text"])
def test_a_file_of_something_else_is_refused_and_runs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, held: str
) -> None:
    path, ran = tmp_path / "weights.pth", tmp_path / "ran"
    if held == "text":
        path.write_bytes(b"no tensors at all")
    else:
        torch.save(Runs(ran) if held == "program" else [1, 2], path)
    monkeypatch.setattr(extractors, "INCEPTION_WEIGHTS", pinned_as(path))
    with pytest.raises(TrainingError, match=r"no file of tensors|else than named tensors"):
        extractor("inception", weights=str(path))
    assert not ran.exists()


def test_the_standard_file_is_pinned() -> None:
    pinned: PinnedFile = extractors.INCEPTION_WEIGHTS
    assert pinned.name == "weights-inception-2015-12-05-6726825d.pth"
    assert pinned.sha256.startswith("6726825d")  # as its publisher's name for it says
    assert pinned.schemes == {"https"}
    assert "github.com" in pinned.hosts


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("raise ImportError('No module named torch_fidelity')", "needs the package torch-fidelity"),
        (
            "raise AttributeError('partially initialized module torchvision')",
            "cannot import torchvision: partially initialized",
        ),
        (
            "raise RuntimeError('operator torchvision::nms does not exist')",
            "install torchvision from where torch came from",
        ),
    ],
)
def test_a_package_that_does_not_import_is_named_with_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str, message: str
) -> None:
    (tmp_path / "torch_fidelity").mkdir()
    (tmp_path / "torch_fidelity" / "__init__.py").write_text(fault)
    for name in [one for one in sys.modules if one.partition(".")[0] == "torch_fidelity"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(TrainingError, match=message) as refused:
        extractor("inception", weights="weights.pth")
    assert "pip install --constraint constraints.txt '.[fid]'" in str(refused.value)


def test_weights_that_lie_in_the_cache_are_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(b"weights")
    monkeypatch.setattr(extractors, "INCEPTION_WEIGHTS", pinned_as(path))
    assert extractors.weights_path("", tmp_path) == path
    assert extractors.weights_path(str(path), None) == path
