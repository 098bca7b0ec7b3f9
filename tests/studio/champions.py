"""A registry in an SQLite file with versions of small generators, and an alias that moves."""

import shutil
from pathlib import Path
from typing import Any

import torch

from models.families.base import GeneratorNet
from models.registry.program import PROGRAM, export_generator
from tests.models.small_generators import small_generator, write_generator

NAME = "avatar-generator"
CHAMPION = "champion"


def generator(number: int, family: str = "stylegan2", **changes: Any) -> GeneratorNet:
    """Makes the small generator of a version: each number draws other pictures."""
    network = small_generator(family, **changes)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(1 + 0.1 * number)
    return network


def write_empty(database: Path) -> Path:
    """Writes a registry's database without any model, which takes MLflow seconds."""
    from mlflow import MlflowClient

    uri = f"sqlite:///{database}"
    MlflowClient(tracking_uri=uri, registry_uri=uri).search_registered_models()
    return database


class Champions:
    """The registered model `avatar-generator` of a folder's registry.

    The files of a version are those that `log_generator` would log, laid out by hand: logging one
    takes seconds, and has tests of its own. The program, which takes longest to make, is exported
    only for the versions that have nothing else.
    """

    def __init__(self, home: Path, empty: Path) -> None:
        """empty: the database that a fresh registry begins with, as `write_empty` makes it."""
        from mlflow import MlflowClient

        home.mkdir(parents=True, exist_ok=True)
        shutil.copy(empty, home / "mlflow.db")
        self.home = home
        self.uri = f"sqlite:///{home}/mlflow.db"
        self.client = MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)
        self.client.create_registered_model(NAME)

    def register(self, network: GeneratorNet, *, weights: bool = True) -> str:
        """Registers a generator as the next version; returns its number."""
        files = self.home / f"models/{len(list(self.home.glob('models/*')))}"
        folder = write_generator(self.home / "trained" / files.name, network)
        if weights:
            shutil.copytree(folder, files / "artifacts")
            (files / "artifacts/train.json").unlink()
            (files / "artifacts" / PROGRAM).write_bytes(b"not read where there are weights")
        else:
            export_generator(folder, files / "artifacts")
            (files / "artifacts/generator.safetensors").unlink()
        made = self.client.create_model_version(NAME, files.as_uri())
        return str(made.version)

    def crown(self, version: str) -> None:
        """Makes a version the champion."""
        self.client.set_registered_model_alias(NAME, CHAMPION, version)

    def files(self, version: str) -> Path:
        """Where the registry keeps a version's files."""
        source = str(self.client.get_model_version(NAME, version).source)
        return Path(source.removeprefix("file://"))
