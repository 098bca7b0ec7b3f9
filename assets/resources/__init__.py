"""Resources of the assets: the store, the executor, child processes and MLflow."""

from assets.resources.child import ChildProcess
from assets.resources.compute import ComputeResource
from assets.resources.store import StoreResource
from assets.resources.tracking import TrackingResource

__all__ = ["ChildProcess", "ComputeResource", "StoreResource", "TrackingResource"]
