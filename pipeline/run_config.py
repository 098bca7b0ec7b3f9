"""Run configurations: the demo's preset, and a user's own file laid over it."""

from pathlib import Path
from typing import Any

import yaml

from dataset.errors import ConfigError, listed, nearest

DEMO_SITE = "demo"


def demo_run_config(*, cropped: bool, config_file: str) -> dict[str, Any]:
    """Returns the demo's run configuration, with the user's YAML file laid over it.

    Raises ConfigError, naming file and key, for what no stage knows.
    """
    # fast: the painter's faces are large, and the demo is to be short
    config: dict[str, Any] = {
        "faces": {"cropped": cropped, "mode": "fast"},
        # 179 faces are held out: 5 sets of more fakes would not tell more, and take minutes
        "evaluation": {"fakes": 400, "flips": 8},
    }
    if config_file:
        config = _laid_over(config, read_config(config_file))
    return {
        "ops": {op_of(stage): {"config": values} for stage, values in config.items() if values},
        "loggers": {"stages": {"config": {}}},
    }


def op_of(stage: str) -> str:
    """Returns the name under which Dagster's run configuration knows a stage of the demo."""
    return f"crawl__{DEMO_SITE}" if stage == "crawl" else stage


def read_config(path: str) -> dict[str, dict[str, Any]]:
    """Reads a YAML file of `stage: {key: value}`; raises ConfigError naming every unknown key."""
    if not Path(path).is_file():
        raise ConfigError(f"--config: {path} is not a file")
    try:
        read = yaml.safe_load(Path(path).read_text())
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {error}") from error
    if not isinstance(read, dict):
        raise ConfigError(f"{path}: `stage: {{key: value}}` wanted, {type(read).__name__} found")
    faults = list(_faults(read))
    if faults:
        raise ConfigError(f"{path} has faults:\n{listed(faults)}")
    return read


def _faults(read: dict[str, Any]) -> list[str]:
    known = stage_options()
    faults = []
    for stage, values in read.items():
        if stage not in known:
            hint = nearest(str(stage), known) or f"; stages are {', '.join(known)}"
            faults.append(f'unknown stage "{stage}"{hint}')
        elif not isinstance(values, dict):
            faults.append(f"{stage}: keys and values wanted, {type(values).__name__} found")
        else:
            for key in values:
                if key not in known[stage]:
                    options = known[stage]
                    hint = nearest(str(key), options) or f"; known are {', '.join(options)}"
                    faults.append(f'{stage}: unknown key "{key}"{hint}')
    return faults


def stage_options() -> dict[str, list[str]]:
    """Returns the configuration keys of each stage."""
    from assets.crawl import CrawlConfig
    from assets.evaluation import EvaluationConfig
    from assets.faces import FaceConfig
    from assets.generator import GeneratorConfig
    from assets.labels import LabelConfig
    from assets.machine_labels import MachineLabelConfig
    from assets.manifest import ManifestConfig

    stages: dict[str, type[Any]] = {
        "crawl": CrawlConfig,
        "faces": FaceConfig,
        "labels": LabelConfig,
        "machine_labels": MachineLabelConfig,
        "manifest": ManifestConfig,
        "generator": GeneratorConfig,
        "evaluation": EvaluationConfig,
    }
    return {stage: list(config.model_fields) for stage, config in stages.items()}


def _laid_over(base: dict[str, Any], upper: dict[str, Any]) -> dict[str, Any]:
    stages = {*base, *upper}
    return {stage: {**base.get(stage, {}), **upper.get(stage, {})} for stage in stages}
