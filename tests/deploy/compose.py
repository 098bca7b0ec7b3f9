"""deploy/compose.yaml as a test reads it, and its services as processes of this machine.

A container's own address, folders and ports are mapped to loopback, folders of the test and free
ports; what is run is the services' own commands, environment and health checks.
"""

import contextlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from pipeline.servers import LOOPBACK, Server, free_port
from tests.waiting import CAP_S

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
PORTS = {
    "postgres": 5432, "s3": 9000, "mlflow": 5000, "code": 4000,
    "webserver": 3000, "studio": 7860, "board": 4650,
}  # fmt: skip
_VARIABLE = re.compile(r"\$\{(\w+)(?::?-([^}]*)|:\?[^}]*)?\}")


def compose(given: Mapping[str, str]) -> dict[str, Any]:
    """Reads compose.yaml with these variables in the place of those of a shell and an .env.

    Fails for a variable that it needs and that is not given, as `docker compose` does.
    """

    def value(found: re.Match[str]) -> str:
        name, default = found.groups()
        assert name in given or default is not None, f"{found[0]}: {name} is not given"
        return given.get(name) or default or ""

    text = (DEPLOY / "compose.yaml").read_text()
    loaded: dict[str, Any] = yaml.safe_load(_VARIABLE.sub(value, text))
    for service in loaded["services"].values():
        environment = service.get("environment", {})
        # A variable without a value is handed on if it is there.
        service["environment"] = {
            name: given[name] if set_here is None else str(set_here)
            for name, set_here in environment.items()
            if set_here is not None or name in given
        }
    return loaded


@dataclass
class Machine:
    """Services as processes in one folder: `folder/state` is the containers' /state, and so on."""

    services: Mapping[str, Any]
    folder: Path
    ports: Mapping[str, int]
    started: dict[str, Server] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in ("state", "scratch", "opt/dagster", "opt/omokage/deploy"):
            (self.folder / name).mkdir(parents=True)
        for name, place in (("dagster", "opt/dagster"), ("workspace", "opt/omokage/deploy")):
            text = (DEPLOY / f"{name}.yaml").read_text()
            (self.folder / place / f"{name}.yaml").write_text(self.here(text))

    def url(self, service: str) -> str:
        return f"http://{LOOPBACK}:{self.ports[service]}"

    def here(self, text: str) -> str:
        """Returns a text with this machine's address, folders and ports for the containers'."""
        names = "|".join(PORTS)
        text = re.sub(rf"(?<![\w.-])(?:{names}|0\.0\.0\.0)(?=:\d)|\b0\.0\.0\.0\b", LOOPBACK, text)
        text = re.sub(rf"host: (?:{names})$", f"host: {LOOPBACK}", text, flags=re.MULTILINE)
        text = re.sub(r"(?<![\w/])/(state|scratch|opt)\b", rf"{self.folder}/\1", text)
        for name, port in PORTS.items():
            text = re.sub(rf"\b{port}\b", str(self.ports[name]), text)
        return text

    def command(self, words: list[str]) -> list[str]:
        here = [self.here(str(word)) for word in words]
        return [sys.executable, *here[1:]] if here[0] == "python" else here

    def environment(self, service: str) -> dict[str, str]:
        own = self.services[service]["environment"]
        return {name: self.here(value) for name, value in own.items()}

    def start(self, service: str, *, instead: list[str] | None = None) -> None:
        """Starts a service after those that it depends on; returns once they are as it wants them.

        instead: the command of what stands in for the image's own.
        """
        for name, wanted in self.services[service].get("depends_on", {}).items():
            if wanted["condition"] == "service_healthy":
                self.wait_until_healthy(name)
            else:
                assert wanted["condition"] == "service_completed_successfully"
                process = self.started[name].process
                assert process is not None
                assert process.wait(CAP_S) == 0, self.started[name].log.read_text()
        command = instead or self.command(self.services[service]["command"])
        log = self.folder / "logs" / f"{service}.log"
        self.started[service] = Server(service, command, log, self.environment(service))
        self.started[service].start()

    def wait_until_healthy(self, service: str) -> None:
        """Returns once the health check of a service succeeds."""
        check = self.services[service]["healthcheck"]["test"]
        assert check[0] == "CMD", "no shell is needed, and none is in every image"
        end = time.monotonic() + CAP_S
        while True:
            if service in self.started:
                self.started[service].check_alive()
            ended = subprocess.run(
                self.command(check[1:]), capture_output=True, text=True, timeout=CAP_S, check=False,
                env={**os.environ, **self.environment(service),
                     "PGPORT": str(self.ports["postgres"])},
            )  # fmt: skip
            if ended.returncode == 0:
                return
            assert time.monotonic() < end, ended.stdout + ended.stderr
            time.sleep(0.3)


@contextlib.contextmanager
def machine(services: Mapping[str, Any], folder: Path, **ports: int) -> Iterator[Machine]:
    """Yields a machine on which nothing has been started yet; ends all that was, the last first.

    ports: of services that run already; the others get free ones.
    """
    made = Machine(services, folder, {name: ports.get(name) or free_port() for name in PORTS})
    try:
        yield made
    finally:
        for server in made.started.values():
            if server.process is not None and server.process.poll() is None:
                server.process.terminate()  # as `docker compose down` does, all at once
        for server in reversed(made.started.values()):
            server.stop()
