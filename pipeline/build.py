"""Puts the code location together: assets for the enabled sites, checks, jobs, resources.

Belongs here: what depends on the settings. Does not belong here: what a stage does (assets/), or
how (the layers below).
"""

import copy
import dataclasses
import importlib
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import yaml
from dagster._utils.tags import normalize_tags

from assets.champion import champion
from assets.checks import table_checks
from assets.comparison import comparison
from assets.crawl import crawl_asset, crawl_check
from assets.evaluation import evaluation, evaluation_checks
from assets.faces import faces
from assets.generator import generator
from assets.labels import labels
from assets.machine_labels import machine_labels
from assets.manifest import manifest
from assets.posts import posts_asset
from assets.reporting import stage_lines
from assets.resources import ChildProcess, ComputeResource, StoreResource, TrackingResource
from crawlers.sites import Site, load_sites
from dataset.errors import ConfigError, nearest
from models.registry.model_uri import shown_uri
from pipeline.automation.cron import refresh_crons
from pipeline.automation.failures import failure_sensor
from pipeline.automation.schedules import gc_schedule, refresh_schedules, with_freshness
from pipeline.automation.sensors import champion_moved, growth_sensor, guarding_checks
from pipeline.instance import patch_waiting_for_pools
from pipeline.jobs import ENTRANT, JOBS
from pipeline.run_config import automatic_config
from pipeline.settings import Settings, computing_environment, read_settings, tracking_client

ASSET_JOB = "__ASSET_JOB"  # Dagster's name for what "Materialize" starts

# Raised by hand when a stage makes something else of equal inputs: Dagster then shows what it made
# before, and what came of that, as out of date. A digest of the sources would do so for every
# comment, and costs 1 to 2 s at each start. A crawl has none: its data version, which Dagster takes
# from a code version where an asset reports no other, would never change.
CODE_VERSIONS = {
    "posts": "1",
    "faces": "1",
    "labels": "1",
    "machine_labels": "1",
    "manifest": "1",
    "generator": "1",
    "evaluation": "1",
    "champion": "1",
}

# Dagster's own code uses what it calls beta or preview; a user can do nothing about that.
for category in (dg.BetaWarning, dg.PreviewWarning):
    warnings.filterwarnings("ignore", category=category)


def build_defs(
    *, settings: Settings | None = None, resource_overrides: Mapping[str, Any] | None = None
) -> dg.Definitions:
    """Returns the definitions for `settings` (default: read from the environment).

    This process's environment stays as it is; its children find the settings in theirs. Raises
    ConfigError for an unknown site or setting.
    """
    chosen = settings or read_settings()
    patch_waiting_for_pools()
    sites = enabled_sites(chosen)
    crawls = [crawl_asset(site, sites_file=chosen.sites_file) for site in sites]
    posts = posts_asset([site.name for site in sites], sites_file=chosen.sites_file)
    dataset = [posts, faces, labels, machine_labels, manifest]
    crons = refresh_crons(chosen.refresh, chosen.sites)
    stages = [*crawls, *dataset, generator, evaluation, champion]
    measured = [stage.map_asset_specs(_with_code_version) for stage in stages]
    tagged = with_step_tags(measured, chosen.step_tags)
    assets = with_freshness(tagged, crons, chosen.timezone)
    checks = [*map(crawl_check, sites), *table_checks(), *evaluation_checks()]
    automatic_config(chosen)  # raises now and not at the first tick
    schedules = refresh_schedules(chosen, crons)
    jobs = [*JOBS, *(schedule.job for schedule in schedules)]
    return dg.Definitions(
        assets=[*assets, comparison],
        asset_checks=checks,
        jobs=jobs,
        schedules=[*schedules, gc_schedule(chosen)],
        sensors=[
            growth_sensor(
                chosen,
                checks=guarding_checks(assets, checks, "manifest"),
                jobs={*(job.name for job in jobs), ASSET_JOB},
            ),
            failure_sensor(chosen),
            champion_moved,
        ],
        resources={**resources(chosen), **(resource_overrides or {})},
        executor=executor_named(chosen.executor),
        loggers={
            "console": dg.colored_console_logger,
            "stages": stage_lines(frozenset([*(asset.op.name for asset in assets), ENTRANT])),
        },
    )


def _with_code_version(spec: dg.AssetSpec) -> dg.AssetSpec:
    version = CODE_VERSIONS.get(spec.key.to_user_string())
    return spec.replace_attributes(code_version=version) if version else spec


def executor_named(name: str) -> dg.ExecutorDefinition:
    """Returns in_process, multiprocess or the executor `module:attribute`, as OMOKAGE_EXECUTOR has.

    Raises ConfigError if there is none there.
    """
    if name == "in_process":
        return dg.in_process_executor
    if name == "multiprocess":
        return dg.multiprocess_executor
    module, _, attribute = name.partition(":")
    try:
        imported = importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0].replace("_", "-")
        raise ConfigError(
            f'OMOKAGE_EXECUTOR is "{name}": no module {error.name} to import; pip install '
            f"{package}, or put its folder on PYTHONPATH"
        ) from error
    found = getattr(imported, attribute, None)
    if not isinstance(found, dg.ExecutorDefinition):
        names = [one for one, is_it in vars(imported).items() if _is_executor(is_it)]
        raise ConfigError(
            f'OMOKAGE_EXECUTOR is "{name}": {module} has no executor {attribute}'
            f"{nearest(attribute, names) or ': it has ' + (', '.join(names) or 'none')}"
        )
    return found


def _is_executor(one: object) -> bool:
    return isinstance(one, dg.ExecutorDefinition)


def with_step_tags(assets: Sequence[dg.AssetsDefinition], path: str) -> list[dg.AssetsDefinition]:
    """Returns the assets with the tags that a YAML file has for their steps, by their names.

    Executors read their resources there, such as `dagster-k8s/config`. path: "" for no file. Raises
    ConfigError, naming file and asset, if it cannot be used.
    """
    if not path:
        return list(assets)
    try:
        wanted = yaml.safe_load(Path(path).read_text()) or {}
    except (OSError, yaml.YAMLError) as error:
        raise ConfigError(f"OMOKAGE_STEP_TAGS: {path} cannot be read: {error}") from error
    known = {asset.key.to_user_string() for asset in assets}
    for name, tags in wanted.items() if isinstance(wanted, dict) else [("", None)]:
        if name and name not in known:
            hint = nearest(str(name), known) or f": known are {', '.join(sorted(known))}"
            raise ConfigError(f'OMOKAGE_STEP_TAGS: {path} names "{name}", which is no asset{hint}')
        if not isinstance(tags, dict):
            raise ConfigError(
                f"OMOKAGE_STEP_TAGS: {path}: tags by the names of assets wanted, such as "
                '"generator: {dagster-k8s/config: {…}}"'
            )
    return [_tagged(asset, wanted.get(asset.key.to_user_string(), {})) for asset in assets]


def _tagged(asset: dg.AssetsDefinition, tags: Mapping[str, Any]) -> dg.AssetsDefinition:
    if not tags:
        return asset
    # Dagster gives an asset its op's tags where it is declared, and takes none later.
    op = copy.copy(asset.op)
    op._tags = {**op.tags, **normalize_tags(dict(tags))}
    attributes = {**asset.get_attributes_dict(), "node_def": op}
    return dg.AssetsDefinition.dagster_internal_init(**attributes)


def resources(settings: Settings) -> dict[str, Any]:
    """Returns the resources of all stages for these settings."""
    tracking = tracking_of(settings)
    has_secret = shown_uri(settings.tracking_uri) != settings.tracking_uri
    return {
        "store": StoreResource(root=settings.data, state=settings.state, scratch=settings.scratch),
        "compute": ComputeResource(workers=settings.workers, on=settings.compute),
        "child": _hidden(
            ChildProcess(
                environment=settings.environment(),
                computing=computing_environment(),
                launcher=settings.launcher,
            )
        ),
        "tracking": _hidden(tracking) if has_secret else tracking,
    }


def tracking_of(settings: Settings) -> TrackingResource:
    """Returns the resource of MLflow."""
    return TrackingResource(**dataclasses.asdict(tracking_client(settings)))


def _hidden(resource: dg.ConfigurableResource) -> dg.ResourceDefinition:
    """Returns a resource without configuration: Dagster stores and shows that, passwords too."""
    return dg.ResourceDefinition.hardcoded_resource(resource)


def enabled_sites(settings: Settings) -> list[Site]:
    """Returns the sites that OMOKAGE_SITES names; raises ConfigError for an unknown one."""
    known = load_sites(settings.sites_file or None)
    for name in settings.sites:
        if name not in known:
            hint = nearest(name, known) or f": known are {', '.join(sorted(known))}"
            raise ConfigError(f'OMOKAGE_SITES names "{name}", which is not in the registry{hint}')
    if not settings.sites:
        raise ConfigError(f"OMOKAGE_SITES is empty; one of {', '.join(sorted(known))} wanted")
    return [known[name] for name in settings.sites]
