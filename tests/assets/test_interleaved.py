"""Two runs take turns: each evaluates and registers the generator that it trained itself."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from assets.champion import champion
from assets.evaluation import evaluation, memorises_no_training_face
from assets.generator import generator
from assets.resources import StoreResource, TrackingResource
from dataset.store import Store
from tests.assets.workshop import WorksHere, Workshop
from tests.models.homes import write_manifest

pytestmark = pytest.mark.slow  # trains and measures
EVALUATION = {"evaluation": {"config": {"fakes": 64}}}


@dataclasses.dataclass
class Turns:
    """A home, and runs of one instance in it."""

    workshop: Workshop
    instance: dg.DagsterInstance

    def run(
        self, assets: list[Any], *, kimg: str = "", **options: Any
    ) -> dg.ExecuteInProcessResult:
        overrides = {"device": "cpu", "threads": "1", "total_kimg": kimg}
        training = {"generator": {"config": {"preset": "smoke", "overrides": overrides}}}
        return dg.materialize(
            assets,
            instance=self.instance,
            resources={
                "store": StoreResource(root=str(self.workshop.home)),
                "child": WorksHere(environment={"OMP_NUM_THREADS": "1"}, trains_here=True),
                "tracking": TrackingResource(**dataclasses.asdict(self.workshop.tracking)),
            },
            run_config={
                "ops": (training if kimg else {}) | (EVALUATION if evaluation in assets else {})
            },
            **options,
        )


@pytest.fixture
def turns(tmp_path: Path) -> Iterator[Turns]:
    write_manifest(tmp_path, train=40)
    with dg.DagsterInstance.ephemeral() as instance:
        yield Turns(Workshop(tmp_path), instance)


def made(result: dg.ExecuteInProcessResult, asset: str) -> dict[str, Any]:
    (event,) = result.asset_materializations_for_node(asset)
    return {name: value.value for name, value in event.metadata.items()}


def test_a_run_evaluates_and_registers_its_own_generator_after_another_has_trained(
    turns: Turns,
) -> None:
    others: list[dict[str, Any]] = []

    # Between the stages of the run around it, by the higher priority
    @dg.asset(deps=[generator], op_tags={"dagster/priority": "9"})
    def another_run() -> None:
        others.append(made(turns.run([generator], kimg="0.12"), "generator"))

    first = turns.run(
        [generator, another_run, evaluation, champion, memorises_no_training_face], kimg="0.08"
    )
    own, (other,) = made(first, "generator"), others
    assert own["digest"] != other["digest"]
    evaluated = made(first, "evaluation")
    assert evaluated["generator"]["id"] == own["digest"]
    assert evaluated["evaluation"].startswith(f"generators/{own['digest']}/")
    assert made(first, "champion")["digest"] == own["digest"]
    (version,) = turns.workshop.tracking.versions({})
    assert version.tags["omokage.generator"] == own["digest"]
    current = Store(turns.workshop.home).read_json("generators/current.json")
    assert (current["id"], "evaluation" in current) == (other["digest"], False)

    # A re-execution of the first run's end is about the first run's generator
    again = turns.run([evaluation], tags={"dagster/parent_run_id": first.run_id})
    assert made(again, "evaluation")["generator"]["id"] == own["digest"]
    # One by itself is about the newest, and the champion after it about what was evaluated last
    alone = turns.run([evaluation])
    assert made(alone, "evaluation")["generator"]["id"] == other["digest"]
    assert made(turns.run([champion]), "champion")["digest"] == other["digest"]
    current = Store(turns.workshop.home).read_json("generators/current.json")
    assert current["evaluation"] == made(alone, "evaluation")["evaluation"]


def test_a_generator_that_was_not_evaluated_is_not_registered(turns: Turns) -> None:
    turns.run([generator, evaluation], kimg="0.08")
    result = turns.run([generator, champion], kimg="0.12", raise_on_error=False)
    (failure,) = [event for event in result.all_events if event.is_step_failure]
    words = failure.step_failure_data.user_failure_data
    trained = made(result, "generator")["digest"]
    assert words is not None
    text = f"generator {trained} has not been judged; materialise evaluation first"
    assert words.description == text
    assert not turns.workshop.tracking.versions({})
