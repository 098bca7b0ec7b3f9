"""A machine that only trains has torch and six packages more; everything else is hidden here."""

import io
import json
import os
import re
import subprocess
import sys
from importlib.metadata import packages_distributions, requires
from pathlib import Path

import numpy as np
import pytest
from packaging.requirements import Requirement
from PIL import Image

from dataset.decode import decode

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("models", "dataset")
SEVEN = {"torch", "numpy", "pandas", "pyarrow", "pillow", "opencv-python", "safetensors"}
SAME = {"opencv-python-headless": "opencv-python"}  # one package in two builds

# Hides every package that is not named, as if it were not installed. The folder mlflow/ in the root
# stays what it would be there: an empty namespace, which `import mlflow` finds.
HIDING = """
import json, os, runpy, sys
from importlib.machinery import BuiltinImporter, FrozenImporter, PathFinder

allowed = {*sys.stdlib_module_names, *json.loads(os.environ["ALLOWED"])}

class Few(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        top = name.partition(".")[0]
        if top in allowed or top.startswith("_"):
            return PathFinder.find_spec(name, path, target)
        beside = PathFinder.find_spec(name, path or [os.getcwd()])
        return beside if beside is not None and beside.loader is None else None

sys.meta_path[:] = [BuiltinImporter, FrozenImporter, Few]

def run(module, *arguments):
    sys.argv = [module, *arguments]
    try:
        runpy.run_module(module, run_name="__main__", alter_sys=True)
    except SystemExit as ended:
        return ended.code
"""
IMPORTING = """
import importlib
for name in json.loads(sys.stdin.read()):
    try:
        importlib.import_module(name)
    except ImportError as error:
        print(name, error.name)
"""
WORKING = """
for command in json.loads(sys.stdin.read()):
    if code := run(*command):
        sys.exit(code)
"""
ASKING = """
from pathlib import Path
from dataset.errors import OmokageError
from models.sampling.clips import Clip
from models.metrics.extractors import extractor
from models.registry.program import log_generator
from models.sampling.video import write_clip

def refused(work):
    try:
        work()
    except OmokageError as error:
        print(error)

clip = Clip(None, seeds=[0], at=None, times=[0.0], columns=1, cell_px=64)
refused(lambda: extractor("efficientnet_lite0"))
refused(lambda: write_clip(clip, [Path("a.mp4")], fps=4, facts={}))
refused(lambda: log_generator("x", run_id="0"))
"""


def normalised(name: str) -> str:
    plain = re.sub(r"[-_.]+", "-", name).lower()
    return SAME.get(plain, plain)


def needed(packages: set[str]) -> set[str]:
    """Returns the packages and all that they require, without extras."""
    found: set[str] = set()
    open_names = set(packages)
    while open_names:
        name = open_names.pop()
        found.add(name)
        installed = name if name != "opencv-python" else CV2
        wanted = [Requirement(line) for line in requires(installed) or []]
        names = {
            normalised(one.name)
            for one in wanted
            if one.marker is None or one.marker.evaluate({"extra": ""})
        }
        open_names |= names - found
    return found


CV2 = packages_distributions()["cv2"][0]  # opencv-python, or its build without windows


@pytest.fixture(scope="module")
def environment() -> dict[str, str]:
    packages = needed(SEVEN)
    modules = {
        module
        for module, owners in packages_distributions().items()
        if any(normalised(owner) in packages for owner in owners)
    }
    assert {"torch", "cv2", "PIL", "fsspec", "dateutil"} <= modules
    assert not {"mlflow", "tqdm", "imagehash", "pyspng", "av", "scipy", "psutil", "click"} & modules
    return {
        **os.environ,
        "OMP_NUM_THREADS": "1",
        "OMOKAGE_PROGRESS": "",
        "ALLOWED": json.dumps([*modules, *PACKAGES]),
        # An orchestrator's: on this machine nobody can log to it.
        "MLFLOW_RUN_ID": "0" * 32,
        "MLFLOW_TRACKING_URI": "http://127.0.0.1:9",
    }


def python(code: str, values: object, environment: dict[str, str]) -> tuple[str, str]:
    ended = subprocess.run(
        [sys.executable, "-c", HIDING + code],
        input=json.dumps(values), cwd=ROOT, env=environment,
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    return ended.stdout, ended.stderr


def test_every_module_of_models_imports(environment: dict[str, str]) -> None:
    files = [path.relative_to(ROOT) for path in (ROOT / "models").rglob("*.py")]
    names = [".".join(path.with_suffix("").parts).removesuffix(".__init__") for path in files]
    failed, _ = python(IMPORTING, sorted(names), environment)
    # What is registered is run by MLflow alone.
    assert failed.split("\n") == ["models.registry.pyfunc_model mlflow.models", ""]


@pytest.mark.parametrize("family", ["dcgan64", "stylegan2"])
def test_it_trains_into_files_resumes_and_draws(
    home: Path, tmp_path: Path, environment: dict[str, str], family: str
) -> None:
    out = f"runs/bare-{family}"
    train = ["models.train", "--home", str(home), "--out", out, "--preset", f"{family}-smoke"]
    train += ["--set", "device=cpu", "--set", "score_pictures=8"]
    longer = ["--set", "total_kimg=0.2"]
    sample = ["models.sample", "grid", "--generator", str(home / out), "--n", "4"]
    sample += ["--out", str(tmp_path / "grid.png")]
    loop = ["models.sample", "loop", "--generator", str(home / out), "--n", "1"]
    loop += ["--seconds", "0.5", "--fps", "4", "--out", str(tmp_path / "loop.gif")]

    printed, said = python(WORKING, [train, [*train, *longer], sample, loop], environment)

    summaries = [json.loads(line) for line in printed.splitlines()]
    assert [one["images_seen"] for one in summaries[:2]] == [160, 200]
    assert "MLflow is not installed here: numbers go to progress.jsonl only" in said
    assert "snapshots are not scored" in said
    assert "going on from 160 pictures" in said
    rows = [json.loads(line) for line in (home / out / "progress.jsonl").read_text().splitlines()]
    assert [row["images_seen"] for row in rows] == [40, 80, 120, 160, 200]
    with Image.open(tmp_path / "grid.png") as grid:
        assert grid.width == 4 * 64
    assert (tmp_path / "loop.gif").stat().st_size > 0


def test_what_needs_more_names_the_package(environment: dict[str, str]) -> None:
    printed, _ = python(ASKING, None, environment)
    extractor, video, registry = printed.splitlines()
    assert "pip install efficientnet-lite-pytorch" in extractor
    assert video.startswith('a.mp4 needs the package "av" (PyAV), which is not installed')
    assert "pip install mlflow" in registry


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "P", "L"])
def test_a_png_has_the_same_pixels_without_pyspng(
    monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    rng = np.random.default_rng(3)
    pixels = rng.integers(0, 256, (37, 29, 4), dtype=np.uint8)
    content = io.BytesIO()
    Image.fromarray(pixels).convert(mode).save(content, "PNG")
    quick = decode(content.getvalue(), where="a.png")
    monkeypatch.setattr("dataset.decode.pyspng", None)
    assert np.array_equal(decode(content.getvalue(), where="a.png"), quick)
