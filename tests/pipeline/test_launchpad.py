"""What the launchpad tells and accepts: each field explains itself, and the defaults run."""

import re
from pathlib import Path
from typing import Any, get_args

import dagster as dg
import pytest

from assets.faces import FaceConfig
from assets.machine_labels import MachineLabelConfig
from dataset.cascade import SEARCHES
from dataset.cropping import DETECTORS
from models.presets import PRESETS
from models.tagger.onnx import LAYOUTS, RANGES
from pipeline.build import build_defs
from pipeline.jobs import JOBS
from pipeline.run_config import demo_run_config, stage_configs
from pipeline.settings import read_settings

FIELDS = [
    pytest.param(name, field, id=f"{stage}.{name}")
    for stage, config in stage_configs().items()
    for name, field in config.model_fields.items()
]


@pytest.mark.parametrize(("name", "field"), FIELDS)
def test_every_field_explains_itself(name: str, field: Any) -> None:
    shown = field.description or ""
    assert shown.endswith("."), shown
    words = set(re.findall(r"[a-z]{3,}", shown.lower())) - set(name.split("_"))
    assert len(words) >= 4, shown


@pytest.mark.parametrize(
    ("config", "field", "known"),
    [
        (FaceConfig, "detector", DETECTORS),
        (FaceConfig, "mode", tuple(SEARCHES)),
        (MachineLabelConfig, "layout", ("", *LAYOUTS)),
        (MachineLabelConfig, "range", ("", *RANGES)),
    ],
)
def test_a_fixed_list_is_offered_whole(
    config: type[dg.Config], field: str, known: tuple[str, ...]
) -> None:
    assert set(get_args(config.model_fields[field].annotation)) == set(known)


def test_the_presets_that_are_told_are_those_that_there_are() -> None:
    shown = stage_configs()["generator"].model_fields["preset"].description or ""
    families = {name for name in PRESETS if "-" not in name} - {"smoke", "demo"}
    assert families <= set(re.findall(r"\w+", shown))


@pytest.fixture
def defs(tmp_path: Path) -> dg.Definitions:
    return build_defs(settings=read_settings({"OMOKAGE_HOME": str(tmp_path)}))


@pytest.mark.parametrize("job", [job.name for job in JOBS])
def test_a_job_runs_with_its_defaults(defs: dg.Definitions, job: str) -> None:
    assert dg.validate_run_config(defs.resolve_job_def(job), {})


def test_the_demos_configuration_fits_the_whole_chain(defs: dg.Definitions) -> None:
    config = demo_run_config(cropped=False, config_file="")
    assert dg.validate_run_config(defs.resolve_job_def("everything"), config)
