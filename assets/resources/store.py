"""The store as a Dagster resource."""

from typing import Any

import dagster as dg
from pydantic import Field

from dataset.store import Store


class StoreResource(dg.ConfigurableResource[Any]):
    """Everything of the chain under one root."""

    root: str = Field(description="A folder or an fsspec URL such as s3://bucket/omokage.")

    def open(self) -> Store:
        """Returns the store; it makes nothing until something is written."""
        return Store(self.root)
