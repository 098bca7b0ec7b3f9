"""The files of deploy/ are what Docker, Kubernetes and Dagster's chart take, and fit each other."""

import json
import re
import tomllib
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema
import kubernetes_validate
import pytest
import yaml
from referencing import Registry, Resource

from pipeline.settings import ELSEWHERE, VARIABLES
from tests.deploy.compose import DEPLOY, PORTS, compose

ROOT = DEPLOY.parent
KUBERNETES = "1.37"
SECRETS = {
    "POSTGRES_PASSWORD": "thepassword",
    "AWS_ACCESS_KEY_ID": "thekey",
    "AWS_SECRET_ACCESS_KEY": "thesecret",
}


def read(name: str) -> Any:
    return yaml.safe_load((DEPLOY / name).read_text())


def services() -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = compose(SECRETS)["services"]
    return found


def test_compose_yaml_fits_the_schema_of_the_compose_specification() -> None:
    vendored = resources.files("check_jsonschema") / "builtin_schemas/vendor/compose-spec.json"
    schema = json.loads(vendored.read_text())
    judge = jsonschema.validators.validator_for(schema)(schema)
    written = read("compose.yaml")
    assert not [fault.message for fault in judge.iter_errors(written)]
    written["services"]["code"]["comand"] = written["services"]["code"].pop("command")
    assert [fault.json_path for fault in judge.iter_errors(written)] == ["$.services.code"]


def test_the_values_fit_the_schema_of_dagsters_chart() -> None:
    schema = json.loads((Path(__file__).parent / "schemas/dagster-values-1.13.json").read_text())
    folder = resources.files("kubernetes_validate") / "kubernetes-json-schema"
    kinds = json.loads((folder / f"v{KUBERNETES}.0-local-strict/_definitions.json").read_text())
    address = "https://kubernetes.io/api/_definitions.json"
    registry = Registry().with_resource(address, Resource.from_contents(kinds))
    judge = jsonschema.Draft202012Validator(schema, registry=registry)
    values = read("helm/dagster-values.yaml")
    judge.validate(values)
    (deployment,) = values["dagster-user-deployments"]["deployments"]
    deployment["resources"]["limit"] = deployment["resources"].pop("limits")
    values["dagsterWebserver"]["imge"] = {}
    faults = [fault.json_path for fault in judge.iter_errors(values)]
    assert len(faults) == 2, "what is misspelt is found, in the chart's fields and Kubernetes'"


@pytest.mark.parametrize("name", ["mlflow", "state"])
def test_the_manifests_fit_the_schemas_of_kubernetes(name: str) -> None:
    manifests = list(yaml.safe_load_all((DEPLOY / f"helm/{name}.yaml").read_text()))
    assert manifests
    for manifest in manifests:
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
        with pytest.raises(kubernetes_validate.ValidationError, match="speck"):
            kubernetes_validate.validate({**manifest, "speck": {}}, KUBERNETES, strict=True)


def test_the_pods_of_the_ray_cluster_fit_the_schemas_of_kubernetes() -> None:
    cluster = read("helm/raycluster.yaml")
    assert (cluster["apiVersion"], cluster["kind"]) == ("ray.io/v1", "RayCluster")
    spec = cluster["spec"]
    assert spec.keys() == {"rayVersion", "headGroupSpec", "workerGroupSpecs"}
    for group in (spec["headGroupSpec"], *spec["workerGroupSpecs"]):
        assert all(isinstance(value, str) for value in group["rayStartParams"].values())
        pod = {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "ray"}, **group["template"]}
        kubernetes_validate.validate(pod, KUBERNETES, strict=True)


def test_every_service_has_a_health_check_and_limits() -> None:
    for name, service in services().items():
        limits = service["deploy"]["resources"]["limits"]
        assert limits.keys() == {"cpus", "memory"}, name
        is_job = name == "create-bucket"
        assert ("healthcheck" in service) is not is_job, name


def test_published_ports_are_those_of_loopback_and_secrets_are_in_no_argument() -> None:
    for name, service in services().items():
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", [])), name
        shown = str([service.get("command"), service.get("healthcheck"), service.get("build")])
        assert not [secret for secret in SECRETS.values() if secret in shown], name


def test_every_setting_reaches_the_code_server() -> None:
    given = dict.fromkeys({*VARIABLES.values(), *ELSEWHERE}, "given")
    code = compose({**SECRETS, **given})["services"]["code"]["environment"]
    # A home of its own is none: its roots are set one by one.
    elsewhere = {"OMOKAGE_HOME", "OMOKAGE_REAL_DATA"}
    elsewhere |= {name for name in ELSEWHERE if name.startswith("OMOKAGE_STUDIO_")}
    assert code.keys() >= given.keys() - elsewhere


def test_every_variable_of_compose_yaml_is_in_the_example() -> None:
    needed = set(re.findall(r"\$\{(\w+)", (DEPLOY / "compose.yaml").read_text()))
    listed = re.findall(r"^#?([A-Z_]+)=", (DEPLOY / ".env.example").read_text(), re.MULTILINE)
    assert needed <= set(listed)
    assert len(listed) == len(set(listed))
    with pytest.raises(AssertionError, match="is not given"):
        compose({})


def test_the_instance_is_that_of_the_checkout_but_for_where_it_stores() -> None:
    deployed = read("dagster.yaml")
    assert deployed.pop("storage") == {
        "postgres": {"postgres_url": {"env": "DAGSTER_POSTGRES_URL"}}
    }
    assert deployed.pop("compute_logs")["class"] == "LocalComputeLogManager"
    assert deployed == yaml.safe_load((ROOT / "dagster.yaml").read_text())
    (location,) = read("workspace.yaml")["load_from"]
    assert location["grpc_server"]["port"] == PORTS[location["grpc_server"]["host"]]


def test_the_image_installs_known_extras_and_its_processes_are_not_roots() -> None:
    text = (DEPLOY / "Dockerfile").read_text()
    (extras,) = re.findall(r"^ARG EXTRAS=(.*)$", text, re.MULTILINE)
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert set(extras.split(",")) <= declared["optional-dependencies"].keys()
    assert services()["code"]["build"]["args"]["EXTRAS"] == extras
    assert re.findall(r"^USER (.*)$", text, re.MULTILINE) == ["omokage"]


def test_the_image_holds_what_git_tracks_and_the_project_needs() -> None:
    ignored = (ROOT / ".dockerignore").read_text().split()
    kept = {line[1:] for line in ignored if line.startswith("!")}
    assert all((ROOT / name).exists() for name in kept)
    tracked = {path.name for path in ROOT.iterdir() if path.suffix != ".egg-info"}
    packages = {"assets", "crawlers", "dataset", "demo", "models", "pipeline", "studio"}
    assert packages | {"mlflow", "deploy", "dagster.yaml", "workspace.yaml"} <= kept <= tracked
