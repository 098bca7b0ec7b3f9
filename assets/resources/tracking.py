"""MLflow as a Dagster resource."""

from typing import Any

import dagster as dg
from pydantic import Field

from models.registry.client import TrackingClient

# What is raised in a run that a person cancels, from Dagster's UI or by Ctrl-C.
INTERRUPTS = (KeyboardInterrupt, dg.DagsterExecutionInterruptedError)


class TrackingResource(dg.ConfigurableResource[Any]):
    """The MLflow tracking server and registry.

    dagster-mlflow's resource ends the run with the step, so this small one hands on ids instead:
    a run belongs to a training, not to a process, and is found again when the training goes on.
    """

    uri: str = Field(description="Tracking URI: sqlite:///… or the address of a server.")
    artifacts: str = Field(
        default="", description="Artifact root of a new experiment; empty: the server's."
    )
    experiment: str = Field(default="avatar-generators", description="Name of the experiment.")
    model: str = Field(default="avatar-generator", description="Name of the registered model.")
    mlflow_url: str = Field(
        default="http://127.0.0.1:5000", description="Where people open MLflow's UI, for links."
    )
    dagster_url: str = Field(
        default="http://127.0.0.1:3000", description="Where people open Dagster's UI, for links."
    )

    def open(self) -> TrackingClient:
        """Returns the client; it asks and makes nothing until it is used."""
        return TrackingClient(
            uri=self.uri,
            artifacts=self.artifacts,
            experiment=self.experiment,
            model=self.model,
            mlflow_url=self.mlflow_url,
            dagster_url=self.dagster_url,
        )
