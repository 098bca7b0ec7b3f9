"""MLflow as a Dagster resource: finds a run by its key, and never relies on the working folder."""

import contextlib
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dagster as dg
from pydantic import Field

from dataset.errors import RegistryError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

RUN_KEY = "omokage.run_key"
SQLITE = "sqlite:///"
DESCRIPTION = (
    "Draws anime faces from labels. The input has a column `labels` with names such as "
    "`blonde_hair,blue_eyes`; the parameters are seed, psi and n. The version that applications "
    "use bears the alias `champion`."
)
EVALUATED = ("fd_efficientnet_lite0", "sigma", "real_fd", "hair_colour_hits")


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

    def database_exists(self) -> bool:
        """Tells whether there is anything to ask: a server, or a database file made before."""
        return not self.uri.startswith(SQLITE) or Path(self.uri.removeprefix(SQLITE)).exists()

    def client(self) -> "MlflowClient":
        """Returns a client on this server, after making the database on first use.

        Raises RegistryError, naming the URI, when it is out of reach.
        """
        import mlflow  # slow to import, and only some stages need it

        if self.uri.startswith(SQLITE):
            Path(self.uri.removeprefix(SQLITE)).parent.mkdir(parents=True, exist_ok=True)
        mlflow.set_tracking_uri(self.uri)
        mlflow.set_registry_uri(self.uri)
        return mlflow.MlflowClient(tracking_uri=self.uri, registry_uri=self.uri)

    def experiment_id(self) -> str:
        """Returns the id of the experiment, made on first use with our artifact root."""
        client = self.client()
        with self._explained():
            known = client.get_experiment_by_name(self.experiment)
            if known is not None:
                return str(known.experiment_id)
            return str(client.create_experiment(self.experiment, self.artifacts or None))

    def run_for(self, key: str, *, name: str, tags: dict[str, str]) -> str:
        """Returns the id of the run with this key, made on first use; opens it again if it ended.

        The same key (the digest of manifest and configuration) always gives the same run, so a
        training that was stopped goes on in the run that it began.
        """
        client, experiment_id = self.client(), self.experiment_id()
        with self._explained():
            found = client.search_runs(
                [experiment_id], f"tags.`{RUN_KEY}` = '{key}'", max_results=1
            )
            if found:
                run_id = str(found[0].info.run_id)
                for tag, value in tags.items():
                    client.set_tag(run_id, tag, value)
                return run_id
            run = client.create_run(
                experiment_id,
                start_time=int(time.time() * 1000),
                tags={RUN_KEY: key, **tags},
                run_name=name,
            )
            return str(run.info.run_id)

    @contextlib.contextmanager
    def open_run(self, run_id: str) -> Iterator[None]:
        """Marks a run as running while the block works, then finished, failed or killed."""
        client = self.client()
        client.update_run(run_id, status="RUNNING")
        try:
            yield
        except (KeyboardInterrupt, dg.DagsterExecutionInterruptedError):
            client.set_terminated(run_id, "KILLED")
            raise
        except BaseException:
            client.set_terminated(run_id, "FAILED")
            raise
        client.set_terminated(run_id, "FINISHED")

    def log_evaluation(self, run_id: str, made: Mapping[str, Any], *, step: int) -> None:
        """Puts an evaluation's numbers onto the generator's run, at the images that it has seen."""
        client = self.client()
        with self._explained():
            for name in EVALUATED:
                if made[name] is not None:  # a set without hair labels has no hair hits
                    client.log_metric(run_id, f"eval/{name}", float(made[name]), step=step)
            client.set_tag(run_id, "omokage.protocol", made["protocol_digest"])

    def log_picture(self, run_id: str, name: str, png: bytes) -> None:
        """Puts a PNG among the run's artifacts."""
        with tempfile.TemporaryDirectory() as folder, self._explained():
            path = Path(folder) / name
            path.write_bytes(png)
            self.client().log_artifact(run_id, str(path))

    def versions(self, tags: Mapping[str, str]) -> list["ModelVersion"]:
        """Returns the model's versions that bear all these tags, the newest first."""
        client = self.client()
        with self._explained():
            found = client.search_model_versions(f"name='{self.model}'")
        bearing = [v for v in found if all(v.tags.get(k) == value for k, value in tags.items())]
        return sorted(bearing, key=lambda version: int(version.version), reverse=True)

    def register(self, uri: str, *, run_id: str, tags: dict[str, str]) -> "ModelVersion":
        """Makes a logged model the next version of the registered model, with its tags at once."""
        client = self.client()
        with self._explained():
            if not client.search_registered_models(f"name='{self.model}'"):
                client.create_registered_model(self.model, description=DESCRIPTION)
            # A server takes a logged model (models:/m-…) only if it is named beside it.
            model_id = uri.removeprefix("models:/") if uri.startswith("models:/m-") else None
            return client.create_model_version(
                self.model, uri, run_id=run_id, tags=tags, model_id=model_id
            )

    def holder(self, alias: str) -> "ModelVersion | None":
        """Returns the version that bears the alias; None if none does."""
        client = self.client()
        with self._explained():
            models = client.search_registered_models(f"name='{self.model}'")
            if not models or alias not in models[0].aliases:
                return None
            return client.get_model_version(self.model, str(models[0].aliases[alias]))

    def tag_version(self, version: str, tags: Mapping[str, str]) -> None:
        """Puts tags onto a version."""
        client = self.client()
        with self._explained():
            for tag, value in tags.items():
                client.set_model_version_tag(self.model, version, tag, value)

    def set_alias(self, alias: str, version: str) -> None:
        """Moves an alias to a version."""
        with self._explained():
            self.client().set_registered_model_alias(self.model, alias, version)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        from mlflow.exceptions import MlflowException

        try:
            yield
        except MlflowException as error:
            raise RegistryError(
                f"MLflow at {self.uri} did not answer as it should: {error}. "
                "Is MLFLOW_TRACKING_URI right, and does the server run?"
            ) from error
