"""Our Dagster instance: its folder and configuration, laid under the home."""

import os
import shutil

import dagster as dg

from dataset.store import Store
from pipeline.settings import PROJECT, Settings


def prepare_home(settings: Settings) -> Store:
    """Makes the home, puts dagster.yaml in its place, and hands the settings to what we start.

    Raises StoreError, saying what to do, if the home cannot be written.
    """
    store = Store(settings.home)
    store.check_writable()
    os.environ.update(settings.environment())
    folder = Store(settings.local_home).make_folder("dagster")
    shutil.copyfile(PROJECT / "dagster.yaml", folder / "dagster.yaml")
    return store


def open_instance() -> dg.DagsterInstance:
    """Returns the instance of the prepared home."""
    return dg.DagsterInstance.get()
