"""One torch thread, and MLflow's settings as every test found them."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from models.registry.model_uri import ENVIRONMENT
from tests.studio.champions import write_empty


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(autouse=True)
def _mlflow_waits_as_briefly_as_the_studio_wants(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sets what the studio would set for the process, so that it ends with the test."""
    for name, value in ENVIRONMENT.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="session")
def empty_registry(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The database that the registries of the tests begin with."""
    return write_empty(tmp_path_factory.mktemp("empty") / "mlflow.db")
