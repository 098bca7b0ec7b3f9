"""Families from Dagster: trained, interrupted, resumed, judged and registered."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from models.io.generators import load_generator
from models.labels import label_rows
from models.sampling.draw import draw
from tests.assets.workshop import INTERRUPTS, Workshop, interrupting_the_first_tick
from tests.models.homes import LABELS, write_manifest

MANIFEST_LABELS = (*LABELS[:2], "twintails", *LABELS[2:])  # one that acgan64 does not take
# What Dagster does is the same for every family; that each of them resumes and is exported alike is
# proved in tests/models. These differ in what Dagster sees: a plain one; one of labels of its own;
# one with a latent w, judged by another network, for it learnt from the features of the usual one.
# Long enough to be interrupted: about a second of steps.
LENGTH_KIMG = {"dcgan64": "0.64", "acgan64": "0.32", "omokage": "0.32"}
IN_A_CHILD = "dcgan64"  # how a signal reaches the trainer's process is the same for every family
SMALL = {"omokage": {"resolution_px": "32"}}


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("workshop")
    write_manifest(root, labels=MANIFEST_LABELS)
    return root


@pytest.mark.slow
@pytest.mark.parametrize("family", LENGTH_KIMG)
def test_a_family_is_interrupted_resumed_judged_and_registered(home: Path, family: str) -> None:
    import mlflow

    workshop = Workshop(home, model=f"avatars-{family}")
    config: dict[str, Any] = {
        "overrides": {"total_kimg": LENGTH_KIMG[family], **SMALL.get(family, {})}
    }
    with interrupting_the_first_tick(home), pytest.raises(INTERRUPTS):
        workshop.materialise(
            f"{family}-smoke", trains_only=True, trains_here=family != IN_A_CHILD, **config
        )
    client = workshop.client()
    (run,) = client.search_runs(["1"], f"tags.`omokage.family` = '{family}'")
    assert run.info.status == "KILLED"

    made = workshop.materialise(f"{family}-smoke", trains_here=True, **config)
    trained = made["generator"]
    total = round(float(LENGTH_KIMG[family]) * 1000)
    assert (trained["resumed"], trained["reused"], trained["images_seen"]) == (True, False, total)
    assert (trained["family"], trained["device"], trained["processes"]) == (family, "CPU", 1)

    # One run holds both parts, each step once
    assert trained["mlflow_run"] == run.info.run_id
    assert client.get_run(run.info.run_id).info.status == "FINISHED"
    assert set(range(40, total + 1, 40)) <= set(workshop.history(run.info.run_id, "train/d_loss"))
    assert workshop.pictures(run.info.run_id) == list(range(80, total + 1, 80))

    # The registered version draws what the folder draws
    assert made["champion"]["promoted"]
    assert made["evaluation"]["hair_colour_hits"] is not None
    model = mlflow.pyfunc.load_model(f"models:/{workshop.model}/{made['champion']['version']}")
    frame = pd.DataFrame({"labels": ["blonde_hair,red_eyes"]})
    faces = model.predict(frame, params={"seed": 3, "n": 2, "psi": 0.8})
    network = load_generator(trained["path"])
    rows = label_rows([["blonde_hair", "red_eyes"]] * 2, network.spec.labels)
    assert np.array_equal(faces, draw(network, rows, [3, 4], psi=0.8))
    known = tuple(label for label in MANIFEST_LABELS if label != "twintails" or family != "acgan64")
    assert network.spec.labels == known
