"""A tiny training set of plain drawn heads, the same as arrays and as a home with a manifest."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from models.training.data import TrainingSet
from tests.models.homes import training_set, write_manifest


@pytest.fixture(autouse=True, scope="session")
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    os.environ["OMP_NUM_THREADS"] = "1"
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def reals() -> TrainingSet:
    return training_set()


@pytest.fixture(scope="session")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A home whose manifest has 40 heads in train and 24 in eval."""
    root = tmp_path_factory.mktemp("home")
    write_manifest(root)
    return root
