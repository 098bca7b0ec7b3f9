"""The configuration of runs that nobody starts by hand: OMOKAGE_AUTO_CONFIG, read at each tick."""

from typing import Any

from dataset.errors import ConfigError
from pipeline.run_config import read_config
from pipeline.settings import Settings

CRAWL = "crawl"
DATASET_STAGES = ("posts", "faces", "labels", "machine_labels", "manifest")
TRAINING_STAGES = ("generator", "evaluation", "champion")


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
    ops = {stage: config.get(stage, {}) for stage in stages}
    if site:
        ops[f"{CRAWL}__{site}"] = {**config.get(CRAWL, {}), **config.get(f"{CRAWL}/{site}", {})}
    return {"ops": {stage: {"config": values} for stage, values in ops.items() if values}}
