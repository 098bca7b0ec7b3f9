"""Run configurations: of the demo, a user's file, and OMOKAGE_AUTO_CONFIG's."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import yaml
from pydantic import ValidationError

from dataset.errors import ConfigError, UsageError, listed, nearest
from models.config import ENDLESS_KIMG
from pipeline.settings import CRAWL, DATASET_STAGES, STAGES, TRAINING_STAGES, Settings

DEMO_SITE = "demo"
DEMO_MINUTES = 5.0  # of training: what hair colours take that obey their labels, on two cores
_LENGTH = ("total_kimg", "max_minutes")


def demo_run_config(
    *, cropped: bool, config_file: str, minutes: float | None = None
) -> dict[str, Any]:
    """Returns the demo's run configuration, with the user's YAML file laid over it.

    minutes: of training; None for DEMO_MINUTES, unless the file has a preset or a length for the
    generator. Raises ConfigError, naming file and key, for what no stage knows, and UsageError for
    minutes beside a length in the file.
    """
    # fast: the painter's faces are large, and the demo is to be short
    config: dict[str, Any] = {
        "faces": {"cropped": cropped, "mode": "fast"},
        # 179 faces are held out: more sets of more fakes would not tell more, and take minutes
        "evaluation": {"fakes": 400, "repeats": 3, "flips": 4},
    }
    if config_file:
        config = _laid_over(config, read_config(config_file))
    generator = config.get("generator", {})
    overrides = generator.get("overrides", {})
    if minutes is None and "preset" not in generator and not set(_LENGTH) & set(overrides):
        minutes = DEMO_MINUTES
    if minutes is not None:
        config["generator"] = {**generator, "overrides": for_minutes(minutes, overrides)}
    return {"ops": ops_of(config, STAGES, sites=(DEMO_SITE,))}


def for_minutes(minutes: float | None, overrides: Mapping[str, str]) -> dict[str, str]:
    """Returns the overrides of a training that ends after so much time, None for its own length.

    Raises UsageError if they have a length already.
    """
    if minutes is None:
        return dict(overrides)
    for name in _LENGTH:
        if name in overrides:
            raise UsageError(
                f"--minutes {minutes:g} and {name} {overrides[name]} both say how long the "
                "training is; leave one of them out"
            )
    return {**overrides, "total_kimg": f"{ENDLESS_KIMG:g}", "max_minutes": f"{minutes:g}"}


def ops_of(
    config: Mapping[str, dict[str, Any]], stages: Sequence[str], *, sites: Sequence[str]
) -> dict[str, Any]:
    """Returns Dagster's configuration of these stages' ops, and of the crawl of these sites.

    config: by stage; `crawl` is for every site, `crawl/<site>` for one.
    """
    found = {stage: config.get(stage, {}) for stage in stages if stage != CRAWL}
    for site in sites:
        found[f"{CRAWL}__{site}"] = {**config.get(CRAWL, {}), **config.get(f"{CRAWL}/{site}", {})}
    return {op: {"config": values} for op, values in found.items() if values}


def read_config(
    path: str, *, sites: Sequence[str] = (), named_by: str = "--config"
) -> dict[str, dict[str, Any]]:
    """Reads a YAML file of `stage: {key: value}`; raises ConfigError naming every fault.

    sites: for each of them a stage `crawl/<site>` is known too. named_by: where the path stood.
    """
    if not Path(path).is_file():
        raise ConfigError(f"{named_by}: {path} is not a file")
    try:
        read = yaml.safe_load(Path(path).read_text())
    except yaml.YAMLError as error:
        raise ConfigError(f"{path} is not YAML: {error}") from error
    if not isinstance(read, dict):
        raise ConfigError(f"{path}: `stage: {{key: value}}` wanted, {type(read).__name__} found")
    faults = _faults(read, sites)
    if faults:
        raise ConfigError(f"{path} has faults:\n{listed(faults)}")
    return read


def _faults(read: dict[str, Any], sites: Sequence[str]) -> list[str]:
    known = stage_options()
    known |= {f"crawl/{site}": known["crawl"] for site in sites}
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
            faults.extend(_unfit(stage, values))
    return faults


def _unfit(stage: str, values: dict[str, Any]) -> list[str]:
    """Names each known key whose value is none that the stage takes."""
    from assets.generator import GeneratorConfig
    from models.presets import preset

    config = stage_configs()[stage.partition("/")[0]]
    given = {key: value for key, value in values.items() if key in config.model_fields}
    try:
        made = config(**given)
        if isinstance(made, GeneratorConfig):
            preset(made.preset, [f"{key}={value}" for key, value in made.overrides.items()])
    except ConfigError as error:
        return [f"{stage}: {error}"]
    except ValidationError as error:
        return [
            f"{stage}: {'.'.join(map(str, fault['loc']))} is {fault['input']!r}: {fault['msg']}"
            for fault in error.errors()
        ]
    return []


def stage_options() -> dict[str, list[str]]:
    """Returns the configuration keys of each stage."""
    return {stage: list(config.model_fields) for stage, config in stage_configs().items()}


def stage_configs() -> dict[str, type[dg.Config]]:
    """Returns the configuration of each stage."""
    from assets.crawl import CrawlConfig
    from assets.evaluation import EvaluationConfig
    from assets.faces import FaceConfig
    from assets.generator import GeneratorConfig
    from assets.labels import LabelConfig
    from assets.machine_labels import MachineLabelConfig
    from assets.manifest import ManifestConfig
    from assets.posts import PostsConfig

    return {
        "crawl": CrawlConfig,
        "posts": PostsConfig,
        "faces": FaceConfig,
        "labels": LabelConfig,
        "machine_labels": MachineLabelConfig,
        "manifest": ManifestConfig,
        "generator": GeneratorConfig,
        "evaluation": EvaluationConfig,
    }


def _laid_over(base: dict[str, Any], upper: dict[str, Any]) -> dict[str, Any]:
    stages = {*base, *upper}
    return {stage: {**base.get(stage, {}), **upper.get(stage, {})} for stage in stages}


def automatic_config(settings: Settings) -> dict[str, dict[str, Any]]:
    """Reads the file that OMOKAGE_AUTO_CONFIG names: `stage: {key: value}`; {} without one.

    `crawl` is for every site, `crawl/<site>` for one. Raises ConfigError naming the file and every
    unknown stage, unknown key and wrong value.
    """
    if not settings.auto_config:
        return {}
    return read_config(settings.auto_config, sites=settings.sites, named_by="OMOKAGE_AUTO_CONFIG")


def automatic_run_config(settings: Settings, job: str, *, site: str = "") -> dict[str, Any]:
    """Returns the run configuration of an automatic run: a site's refresh, or a training.

    job: its name, for the text of a fault. Raises ConfigError as `automatic_config` does.
    """
    try:
        config = automatic_config(settings)
    except ConfigError as error:
        raise ConfigError(f"{job} cannot be asked for: {error}") from error
    stages = DATASET_STAGES if site else TRAINING_STAGES
    return {"ops": ops_of(config, stages, sites=[site] if site else [])}
