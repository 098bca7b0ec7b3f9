import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from dataset.errors import TrainingError, UsageError
from models.families import FAMILIES, family_of
from models.families.base import GeneratorSpec
from models.io.generators import find_generator, generator_digest, load_generator, typical_rows
from models.io.safe_io import without_memory
from models.training.data import TrainingSet
from tests.models.small_generators import (
    NAMES,
    TYPICAL,
    small_generator,
    write_checkpoint,
    write_generator,
)
from tests.models.trainings import narrow, trained


@pytest.mark.parametrize("family", ["dcgan64", "stylegan2"])
def test_a_generator_and_a_checkpoint_of_it_load_as_the_same(tmp_path: Path, family: str) -> None:
    made = small_generator(family)
    folder = write_generator(tmp_path / "generator", made)
    checkpoint = write_checkpoint(tmp_path / "checkpoint", made)
    loaded = [load_generator(place) for place in (folder, checkpoint)]
    digests = {generator_digest(one) for one in (made, *loaded)}
    assert len(digests) == 1
    for one in loaded:
        assert not one.training
        assert not any(parameter.requires_grad for parameter in one.parameters())
    other = small_generator(family, labels=NAMES[:2])
    assert generator_digest(other) not in digests


def test_of_a_training_the_finished_generator_is_taken_else_the_newest_checkpoint(
    tmp_path: Path,
) -> None:
    made = small_generator("dcgan64")
    for number in (100, 200):
        write_checkpoint(tmp_path / f"checkpoints/{number:010d}", made)
    (tmp_path / "checkpoints/0000000300").mkdir()  # cut off before its state.json
    place = find_generator(str(tmp_path))
    assert (place.folder, place.is_checkpoint) == ("checkpoints/0000000200", True)
    write_generator(tmp_path / "generator", made)
    assert find_generator(str(tmp_path)).folder == "generator"


def test_a_folder_without_a_generator_is_refused_with_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"holds no generator: neither spec\.json .*state\.json"):
        load_generator(str(tmp_path))


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"sha256": "0" * 64}, "state.safetensors is damaged"),
        ({"spec": None}, "a JSON object is wanted"),
    ],
)
def test_a_damaged_checkpoint_is_named(tmp_path: Path, facts: dict[str, Any], message: str) -> None:
    folder = write_checkpoint(tmp_path / "it", small_generator("dcgan64"), **facts)
    with pytest.raises(TrainingError, match=message):
        load_generator(folder)


def test_a_generator_with_the_counters_of_torchs_batch_norm_still_loads(tmp_path: Path) -> None:
    made = small_generator("dcgan64")
    folder = write_generator(tmp_path / "old", made)
    tensors = made.state_dict() | {"norm0.norm.num_batches_tracked": torch.tensor(7)}
    safetensors.torch.save_file(tensors, tmp_path / "old/generator.safetensors")
    assert generator_digest(load_generator(folder)) == generator_digest(made)


def test_a_spec_keeps_its_text_where_a_later_field_is_at_its_default() -> None:
    # Digests of generators, in pictures and in the registry, are taken over this text.
    network = small_generator("stylegan2")
    assert list(network.spec.to_json()) == [
        "family", "resolution_px", "z_dim", "z_dist", "labels", "width", "z_std", "blocks",
        "channel_base", "channel_max", "w_dim", "mapping_layers", "can_w", "can_mixing",
        "can_noise",
    ]  # fmt: skip
    clamped = dataclasses.replace(network.spec, conv_clamp=256.0)
    assert clamped.to_json() == network.spec.to_json() | {"conv_clamp": 256.0}
    assert GeneratorSpec.from_json(clamped.to_json(), where="spec.json") == clamped


def test_a_checkpoint_without_a_spec_says_so(tmp_path: Path) -> None:
    folder = write_checkpoint(tmp_path / "it", small_generator("dcgan64"))
    state = json.loads((tmp_path / "it/state.json").read_text())
    del state["spec"]
    (tmp_path / "it/state.json").write_text(json.dumps(state))
    with pytest.raises(TrainingError, match='has no "spec"'):
        load_generator(folder)


def test_typical_labels_of_a_checkpoint_stand_in_its_state(tmp_path: Path) -> None:
    made = small_generator("dcgan64")
    bare = write_checkpoint(tmp_path / "bare", made)
    with pytest.raises(UsageError, match="name --labels, from blonde_hair"):
        typical_rows(bare, NAMES)
    kept = write_checkpoint(tmp_path / "kept", made, typical_labels=TYPICAL)
    assert np.array_equal(typical_rows(kept, NAMES), [[1, 0, 1], [0, 1, 0], [1, 0, 0]])
    free = write_checkpoint(tmp_path / "free", small_generator("stylegan2", labels=()))
    assert typical_rows(free, ()).shape == (1, 0)
    assert torch.is_tensor(next(load_generator(free).parameters()))


def test_a_trainings_newest_checkpoint_draws_what_its_generator_draws(
    tmp_path: Path, reals: TrainingSet
) -> None:
    trained(tmp_path, reals)
    run = tmp_path / "run"
    newest = max(run.glob("checkpoints/*/state.json")).parent
    generator, checkpoint = (load_generator(str(path)) for path in (run, newest))
    assert generator_digest(generator) == generator_digest(checkpoint)
    names = generator.spec.labels
    assert np.array_equal(typical_rows(str(newest), names), typical_rows(str(run), names))


# Made without memory


class Drawn(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Notes which of torch's functions draw random numbers without memory."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.names: list[str] = []

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        if torch.Tag.nondeterministic_seeded in getattr(func, "tags", ()) and made.is_meta:
            self.names.append(str(func))
        return made


@pytest.mark.parametrize("family", FAMILIES)
def test_a_generator_has_its_shapes_and_nothing_is_drawn_for_it(family: str) -> None:
    spec = family_of(family).spec(("blonde_hair", "smile"), narrow(family).g_size())
    with Drawn() as drawn, without_memory():
        empty = family_of(family).generator(spec)
    assert drawn.names == []
    made = family_of(family).generator(spec).state_dict()
    described = {name: (one.shape, one.dtype) for name, one in empty.state_dict().items()}
    assert described == {name: (one.shape, one.dtype) for name, one in made.items()}
    assert all(one.is_meta for one in empty.state_dict().values())


def test_what_names_its_device_is_made_as_ever() -> None:
    rng = torch.Generator().manual_seed(3)
    with without_memory():
        drawn = torch.randn(4, generator=rng, device="cpu")
    assert torch.equal(drawn, torch.randn(4, generator=torch.Generator().manual_seed(3)))
