"""The graph as it is meant to be: keys, dependencies, groups, kinds, checks and jobs."""

import datetime as dt
import os
import runpy
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from syrupy.assertion import SnapshotAssertion

from assets.crawl import crawl_asset
from assets.resources import ChildProcess, StoreResource
from crawlers.sites import load_sites
from dataset.errors import ConfigError
from pipeline.automation.cron import parse_cron
from pipeline.automation.schedules import freshness_policy
from pipeline.build import CODE_VERSIONS, build_defs
from pipeline.settings import DEFAULTS, VARIABLES, read_settings
from tests.pipeline.conftest import clean_environment

ROOT = Path(__file__).resolve().parents[2]

FRESH = {"crawl/demo", "posts", "manifest"}


@pytest.fixture
def defs(tmp_path: Path) -> dg.Definitions:
    return build_defs(settings=read_settings({"OMOKAGE_HOME": str(tmp_path)}))


def test_the_graph_is_as_pinned(defs: dg.Definitions, snapshot: SnapshotAssertion) -> None:
    """All but descriptions; `pytest --snapshot-update` after a change that is meant."""
    graph = defs.resolve_asset_graph()
    nodes = [graph.get(key) for key in graph.materializable_asset_keys]
    specs = [
        spec
        for one in defs.asset_checks or []
        if isinstance(one, dg.AssetChecksDefinition)
        for spec in one.check_specs
    ]
    layers = {job.name: defs.resolve_job_def(job.name).asset_layer for job in defs.jobs or []}
    schedules = [one for one in defs.schedules or [] if isinstance(one, dg.ScheduleDefinition)]
    assert {
        "assets": {
            node.key.to_user_string(): {
                "deps": sorted(parent.to_user_string() for parent in node.parent_keys),
                "group": node.group_name,
                "kinds": sorted(node.kinds or ()),
                "pools": sorted(node.pools or ()),
            }
            for node in nodes
        },
        "blocking_by_check": {
            f"{spec.asset_key.to_user_string()}:{spec.name}": spec.blocking for spec in specs
        },
        "assets_by_job": {
            name: sorted(key.to_user_string() for key in layer.executable_asset_keys)
            for name, layer in layers.items()
        },
        "schedules": {
            one.name: [one.cron_schedule, one.execution_timezone, one.default_status.value]
            for one in schedules
        },
        "sensors": {one.name: one.default_status.value for one in defs.sensors or []},
    } == snapshot
    described = [*nodes, *specs, *(defs.jobs or []), *schedules, *(defs.sensors or [])]
    assert not [one for one in described if not one.description]
    # Each one is of the kinds that the snapshot shows.
    assert len(specs) == len(list(defs.asset_checks or []))
    assert len(schedules) == len(list(defs.schedules or []))


def test_every_asset_says_what_it_is_and_whose(defs: dg.Definitions) -> None:
    graph = defs.resolve_asset_graph()
    for key in graph.materializable_asset_keys:
        node = graph.get(key)
        assert node.description, key
        assert list(node.owners) == ["team:avatars"], key


@pytest.mark.parametrize(
    "name",
    [
        "crawl/demo",
        "posts",
        "faces",
        "labels",
        "machine_labels",
        "manifest",
        "generator",
        "evaluation",
        "champion",
        "comparison",
    ],
)
def test_an_asset_says_from_what_it_is_made_where_it_lies_and_what_to_do(
    defs: dg.Definitions, name: str
) -> None:
    node = defs.resolve_asset_graph().get(dg.AssetKey(name.split("/")))
    for part in ("**From** ", "**Lies in** ", "**If it is wrong:** "):
        assert part in (node.description or "")
    assert set(node.tags) >= {"domain", "needs"}


@pytest.mark.parametrize("name", ["posts", "faces", "labels", "machine_labels", "manifest"])
def test_tables_declare_their_columns_and_what_those_are_made_from(
    defs: dg.Definitions, name: str
) -> None:
    metadata = defs.resolve_asset_graph().get(dg.AssetKey(name)).metadata
    columns = metadata["dagster/column_schema"].columns
    assert all(column.description for column in columns)
    lineage = metadata["dagster/column_lineage"].deps_by_column
    assert set(lineage) == {column.name for column in columns}


def test_what_a_refresh_makes_has_a_freshness_policy(defs: dg.Definitions) -> None:
    policies = {
        key.to_user_string(): spec.freshness_policy
        for asset in defs.assets or []
        if isinstance(asset, dg.AssetsDefinition)
        for key, spec in asset.specs_by_key.items()
    }
    assert {key for key, policy in policies.items() if policy is not None} == FRESH
    wanted = dg.FreshnessPolicy.cron("0 10 * * *", lower_bound_delta=dt.timedelta(days=1))
    assert policies["crawl/demo"] == policies["manifest"] == wanted


def test_a_site_is_fresh_by_its_own_cron_and_the_tables_by_the_most_frequent(
    tmp_path: Path,
) -> None:
    settings = read_settings(
        {
            "OMOKAGE_HOME": str(tmp_path),
            "OMOKAGE_SITES": "demo,konachan",
            "OMOKAGE_REFRESH": "0 * * * *; konachan=0 4 * * mon",
        }
    )
    graph = build_defs(settings=settings).resolve_asset_graph()
    hourly, weekly = "0 * * * *", "0 4 * * mon"
    for key, cron in {"crawl/demo": hourly, "crawl/konachan": weekly, "posts": hourly}.items():
        found = graph.get(dg.AssetKey.from_user_string(key)).freshness_policy_or_from_metadata
        assert found == freshness_policy(parse_cron(cron), "UTC"), key


@pytest.mark.parametrize(
    ("refresh", "deadline", "delta_h"),
    [
        ("0 4 * * *", "0 10 * * *", 24),
        ("30 20 * * *", "30 2 * * *", 24),  # on the next day
        ("0 20 * * fri", "59 23 * * fri", 24),  # Saturday has no refresh
        ("*/15 * * * *", f"45 {','.join(map(str, range(24)))} * * *", 1),
        ("0 9-17 * * mon-fri", "0 10,11,12,13,14,15,16,17,18 * * mon-fri", 1),
        ("30 1,13 * * *", "30 2,14 * * *", 12),
        ("@monthly", "0 6 1 * *", 24),
    ],
)
def test_an_asset_is_overdue_some_hours_after_its_refresh(
    refresh: str, deadline: str, delta_h: int
) -> None:
    found = freshness_policy(parse_cron(refresh), "Europe/Berlin")
    delta = dt.timedelta(hours=delta_h)
    assert found == dg.FreshnessPolicy.cron(deadline, delta, timezone="Europe/Berlin")


def test_several_sites_feed_one_table(tmp_path: Path) -> None:
    settings = read_settings(
        {"OMOKAGE_HOME": str(tmp_path), "OMOKAGE_SITES": "demo,konachan,safebooru_donmai"}
    )
    graph = build_defs(settings=settings).resolve_asset_graph()
    parents = {key.to_user_string() for key in graph.get(dg.AssetKey("posts")).parent_keys}
    assert parents == {"crawl/demo", "crawl/konachan", "crawl/safebooru_donmai"}


def test_the_sites_of_one_board_share_its_pool() -> None:
    sites = load_sites()
    pools = {
        name: crawl_asset(sites[name]).op.pool for name in ("safebooru_donmai", "danbooru_donmai")
    }
    assert pools == dict.fromkeys(pools, "board_danbooru")
    assert crawl_asset(sites["konachan"]).op.pool == "board_konachan"


def test_an_unknown_site_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    settings = read_settings({"OMOKAGE_HOME": str(tmp_path), "OMOKAGE_SITES": "konachn"})
    with pytest.raises(ConfigError, match=r'"konachn".*did you mean "konachan"'):
        build_defs(settings=settings)


def test_resources_can_be_overridden(tmp_path: Path) -> None:
    settings = read_settings({"OMOKAGE_HOME": str(tmp_path / "one")})
    other = StoreResource(root=str(tmp_path / "other"))
    built = build_defs(settings=settings, resource_overrides={"store": other})
    assert built.resources is not None
    assert built.resources["store"] is other


@pytest.mark.slow
@pytest.mark.parametrize("options", [[], ["--workspace", "workspace.yaml"]], ids=["root", "file"])
def test_dagster_loads_the_code_location(tmp_path: Path, options: list[str]) -> None:
    ended = subprocess.run(
        [Path(sys.executable).with_name("dagster"), "definitions", "validate", *options],
        cwd=ROOT,
        env=clean_environment() | {"OMOKAGE_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert "Validation successful for code location omokage" in ended.stdout + ended.stderr


def test_importing_the_definitions_leaves_the_environment_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in (*VARIABLES.values(), *DEFAULTS):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("OMOKAGE_HOME", str(tmp_path))
    before = dict(os.environ)
    built = runpy.run_module("pipeline.definitions")["defs"]
    assert isinstance(built, dg.Definitions)
    assert dict(os.environ) == before
    assert not list(tmp_path.iterdir())


class WhoseHome(ChildProcess):
    """Tells what a child finds in its environment, in the place of one that crawls."""

    def run(self, context: Any, arguments: Sequence[str], **_: Any) -> dict[str, Any]:
        home = arguments[arguments.index("--home") + 1]
        found = {name: self.environment[name] for name in ("OMOKAGE_HOME", "OMOKAGE_BOARD_URL")}
        raise dg.Failure(f"{home} {found['OMOKAGE_HOME']} {found['OMOKAGE_BOARD_URL']}")


def test_two_homes_in_one_process_do_not_mix(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("pipeline.build.ChildProcess", WhoseHome)
    board = "http://127.0.0.1:{}".format
    given = [(str(tmp_path / name), board(port)) for name, port in (("one", 1), ("two", 2))]
    settings = [
        read_settings({"OMOKAGE_HOME": home, "OMOKAGE_BOARD_URL": url}) for home, url in given
    ]
    built = [build_defs(settings=one) for one in settings]
    for defs, (home, url) in zip(built, given, strict=True):
        run = defs.resolve_job_def("refresh_dataset").execute_in_process(
            raise_on_error=False, asset_selection=[dg.AssetKey(["crawl", "demo"])]
        )
        (failed,) = [event for event in run.all_events if event.is_step_failure]
        data = failed.step_failure_data.user_failure_data
        assert data is not None
        assert data.description == f"{home} {home} {url}"


def test_every_stage_but_a_crawl_has_a_code_version(defs: dg.Definitions) -> None:
    graph = defs.resolve_asset_graph()
    versions = {
        key.to_user_string(): graph.get(key).code_version for key in graph.get_all_asset_keys()
    }
    assert {name: text for name, text in versions.items() if text} == CODE_VERSIONS
    assert {name for name, text in versions.items() if not text} == {"crawl/demo", "comparison"}


def built(home: Path, **variables: str) -> dg.Definitions:
    given = {f"OMOKAGE_{name.upper()}": value for name, value in variables.items()}
    return build_defs(settings=read_settings({"OMOKAGE_HOME": str(home), **given}))


def test_an_executor_of_another_package_is_taken_by_its_name(tmp_path: Path) -> None:
    defs = built(tmp_path, executor="dagster:multi_or_in_process_executor")
    assert defs.executor is dg.multi_or_in_process_executor
    with pytest.raises(ConfigError, match="no module nowhere to import; pip install nowhere"):
        built(tmp_path, executor="nowhere:executor")
    with pytest.raises(ConfigError, match='did you mean "in_process_executor"'):
        built(tmp_path, executor="dagster:in_proces_executor")


def test_steps_have_the_tags_of_the_file_for_executors_that_read_them(tmp_path: Path) -> None:
    path = tmp_path / "tags.yaml"
    path.write_text(
        "generator: {dagster-k8s/config: {container_config: {resources: {limits: {gpu: 1}}}}}\n"
        "crawl/demo: {dagster-ray/config: {num_cpus: 2}}\n"
    )
    defs = built(tmp_path, step_tags=str(path))
    job = defs.resolve_job_def("train_and_judge")
    tags = job.get_node_named("generator").definition.tags
    assert '"gpu": 1' in tags["dagster-k8s/config"]
    crawl = defs.resolve_job_def("refresh_demo").get_node_named("crawl__demo").definition.tags
    assert (crawl["dagster-ray/config"], crawl["omokage/stage"]) == ('{"num_cpus": 2}', "crawl")
    assert (
        "dagster-ray/config"
        not in built(tmp_path)
        .resolve_job_def("refresh_demo")
        .get_node_named("crawl__demo")
        .definition.tags
    )

    path.write_text("generater: {a: b}\n")
    with pytest.raises(ConfigError, match='names "generater", which is no asset; did you mean'):
        built(tmp_path, step_tags=str(path))
    path.write_text("- generator\n")
    with pytest.raises(ConfigError, match="tags by the names of assets wanted"):
        built(tmp_path, step_tags=str(path))
