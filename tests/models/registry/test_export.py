import json
import os
import subprocess
import sys
import sysconfig
from pathlib import Path

import numpy as np
import pytest
import torch

from dataset.store import Store
from models.evaluate import open_subject
from models.families import FAMILIES, family_of
from models.families.base import NetworkSize
from models.io.generators import WEIGHTS, generator_digest, load_generator, typical_rows
from models.labels import label_rows
from models.registry.program import (
    ProgramGenerator,
    export_generator,
    log_generator,
    open_files,
    program_sha256,
    registered_files,
)
from models.sampling.draw import asked_labels, draw
from models.training.data import TrainingSet
from tests.models.homes import LABELS
from tests.models.small_generators import NAMES, write_generator
from tests.models.trainings import trained
from tests.tiers import all_slow_but

# Runs with -S: no .pth file is read, so the editable install of this repository is out of reach.
ELSEWHERE = """
import json, sys
sys.path.append(sys.argv[1])
import mlflow, numpy, pandas
mlflow.set_tracking_uri(sys.argv[2])
model = mlflow.pyfunc.load_model(sys.argv[3])
faces = model.predict(
    pandas.DataFrame({"labels": ["blonde_hair, blue_eyes", "brown hair"]}),
    params={"seed": 5, "psi": 0.7, "n": 33},
)
free = model.predict(pandas.DataFrame({"labels": [""]}), params={"n": 3})
every = model.predict(
    pandas.DataFrame({"labels": ["blonde hair", ""]}),
    params={"seed": 5, "n": 2, "labels": "blue_eyes"},
)
numpy.savez(sys.argv[4], faces=faces, free=free, every=every)
refused = []
for labels, params in json.loads(sys.argv[5]):
    try:
        model.predict(pandas.DataFrame({"labels": [labels]}), params=params)
        refused.append("")
    except Exception as error:
        refused.append(f"{type(error).__name__}: {error}")
ours = {"models", "dataset", "assets", "crawlers", "pipeline", "studio", "demo"}
print(json.dumps({"refused": refused, "ours": sorted(ours & set(sys.modules))}))
"""

WRONG = [
    ("blond_hair", {}, 'row 0: unknown label "blond_hair"; did you mean "blonde_hair"?'),
    ("", {"sead": 1}, 'unknown parameter "sead"; did you mean "seed"?'),
    ("", {"psi": 2.5}, "psi is 2.5; 0 (the mean face) to 2 wanted"),
    ("", {"n": 0}, "n is 0 for 1 rows; 1 to 10000 pictures wanted"),
    ("", {"labels": "blu_eyes"}, 'parameter labels: unknown label "blu_eyes"; did you mean "blue_'),
    ("", {"lables": "blue_eyes"}, 'unknown parameter "lables"; did you mean "labels"?'),
    ("", {"seed": -1}, "seed is -1; a whole number from 0 wanted"),
]


@pytest.mark.slow
def test_registered_model_draws_the_same_bytes_without_this_repository(
    tmp_path: Path, reals: TrainingSet, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")
    monkeypatch.setenv("DO_NOT_TRACK", "true")
    monkeypatch.chdir(tmp_path)
    import mlflow

    trained(tmp_path, reals)
    folder = str(tmp_path / "run/generator")
    uri = f"sqlite:///{tmp_path}/mlflow.db"
    client = mlflow.MlflowClient(uri)
    experiment = client.create_experiment("faces", artifact_location=str(tmp_path / "artifacts"))
    run_id = client.create_run(experiment).info.run_id
    before = mlflow.get_tracking_uri()
    try:
        model_uri = log_generator(folder, run_id=run_id, tracking_uri=uri)
    finally:
        mlflow.set_tracking_uri(before)

    run = client.get_run(run_id)
    assert run.info.status == "RUNNING"  # logging a model does not end its run
    assert client.search_logged_models([experiment])[0].source_run_id == run_id
    assert list(tmp_path.glob("artifacts/**/generator.pt2"))
    (weights,) = tmp_path.glob("artifacts/**/generator.safetensors")
    assert weights.read_bytes() == (tmp_path / "run/generator/generator.safetensors").read_bytes()
    assert not list(tmp_path.glob("artifacts/**/*.pkl"))

    drawn = tmp_path / "drawn.npz"
    wrong = json.dumps([row[:2] for row in WRONG])
    arguments = [sysconfig.get_paths()["purelib"], uri, model_uri, str(drawn), wrong]
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", ELSEWHERE, *arguments],
        cwd="/",
        env={**os.environ, "OMP_NUM_THREADS": "1", "MLFLOW_CONFIGURE_LOGGING": "false"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout.splitlines()[-1])
    assert report["ours"] == []
    for refused, (_, _, wanted) in zip(report["refused"], WRONG, strict=True):
        assert wanted in refused

    generator = load_generator(folder)
    labels = label_rows([["blonde_hair", "blue_eyes"], ["brown_hair"]], LABELS).repeat(33, axis=0)
    with np.load(drawn) as found:
        assert found["faces"].shape == (66, 64, 64, 3)
        assert np.array_equal(found["faces"], draw(generator, labels, range(5, 71), psi=0.7))
        typical = typical_rows(folder, LABELS)
        free = asked_labels([], range(3), known=LABELS, typical=typical)
        assert np.array_equal(found["free"], draw(generator, free, range(3)))
        both = label_rows([["blonde_hair", "blue_eyes"], ["blue_eyes"]], LABELS).repeat(2, axis=0)
        assert np.array_equal(found["every"], draw(generator, both, range(5, 9)))


@pytest.mark.parametrize("family", all_slow_but(FAMILIES, "dcgan64"))
def test_the_weights_draw_the_very_bytes_of_the_program(family: str, tmp_path: Path) -> None:
    maker = family_of(family)
    size = NetworkSize(
        maker.resolutions_px[0],
        width=0.05,
        blocks=2,
        channel_base=512,
        channel_max=16,
        w_dim=16,
        mapping_layers=2,
    )
    torch.manual_seed(0)
    network = maker.generator(maker.spec(NAMES, size)).eval()
    made = export_generator(write_generator(tmp_path / "trained", network), tmp_path / "files")
    files = registered_files(made)

    whole = open_files(files)
    assert generator_digest(whole) == generator_digest(network)
    assert (whole.spec, whole.training) == (network.spec, False)
    labels = label_rows([["blonde_hair"], ["blue_hair", "blue_eyes"], []], whole.spec.labels)
    pictures = draw(whole, labels, [1, 2, 3], psi=0.7)
    assert len(np.unique(pictures)) > 2
    program = ProgramGenerator(files)
    assert np.array_equal(draw(program, labels, [1, 2, 3], psi=0.7), pictures)

    # Versions from before carried the program alone.
    (files / WEIGHTS).unlink()
    old = open_files(registered_files(files))
    assert np.array_equal(draw(old, labels, [1, 2, 3], psi=0.7), pictures)
    assert isinstance(old, ProgramGenerator)
    assert old.can_less == network.spec.can_w
    assert open_subject(Store(tmp_path), str(files)).sha256 == program_sha256(files)
