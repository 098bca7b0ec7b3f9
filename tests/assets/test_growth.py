"""A generator is gone on from on a grown manifest, and only where that can be."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from assets.generator import Plan, device_in_words, planned
from dataset.manifest import load_manifest
from dataset.store import Store
from models.presets import preset
from tests.assets.workshop import Workshop
from tests.models.homes import LABELS, write_manifest

SMOKE = preset("smoke", ["device=cpu", "threads=1"])


@pytest.fixture
def workshop(tmp_path: Path) -> Workshop:
    return Workshop(tmp_path)  # each test its own, for what is there already decides what is done


def trained(workshop: Workshop, preset: str = "smoke", **config: Any) -> dict[str, Any]:
    made = workshop.materialise(preset, trains_only=True, trains_here=True, **config)
    return made["generator"]


@pytest.mark.slow
def test_a_grown_manifest_is_gone_on_with_from_the_last_checkpoint(workshop: Workshop) -> None:
    small = write_manifest(workshop.home, train=40)
    first = trained(workshop, grow_kimg=0.08)
    assert first["started"] == "from scratch: there is no generator yet to grow"
    assert (first["images_seen"], first["origin"]) == (160, "none")

    large = write_manifest(workshop.home, train=60)
    grown = trained(workshop, grow_kimg=0.08)
    assert grown["started"] == f"going on from {first['digest']} for 0.08 kimg"
    assert grown["images_seen"] == 160 + 80
    assert grown["origin"] == {
        "generator": first["digest"],
        "images_seen": 160,
        "manifest_digest": small,
    }
    assert grown["manifest"] == large
    assert "-from-" in grown["digest"]
    run = workshop.client().get_run(grown["mlflow_run"])
    assert run.data.tags["omokage.origin"] == first["digest"]
    assert sorted(workshop.history(grown["mlflow_run"], "train/d_loss")) == [200, 240]

    # The same settings again are that generator; one from scratch on the same manifest is another
    again = trained(workshop, grow_kimg=0.08)
    assert (again["digest"], again["reused"]) == (grown["digest"], True)
    scratch = trained(workshop, overrides={"total_kimg": "0.08"})
    assert scratch["digest"] != grown["digest"]
    assert (scratch["started"], scratch["images_seen"]) == ("from scratch", 80)

    # Other labels: what was learnt cannot be gone on from, and the reason says why
    write_manifest(workshop.home, labels=LABELS[:4], train=60)
    other = trained(workshop, grow_kimg=0.08)
    assert "its labels are blonde_hair, " in other["started"]
    assert other["started"].startswith("from scratch: ")
    assert (other["images_seen"], other["origin"]) == (160, "none")


def plan(home: Path, current: dict[str, Any] | None, **changes: Any) -> Plan:
    store = Store(home)
    return planned(
        store,
        dataclasses.replace(SMOKE, **changes),
        manifest=load_manifest(store, None),
        grow_kimg=1.0,
        current=current,
    )


def test_other_settings_and_a_lost_checkpoint_are_told(tmp_path: Path) -> None:
    digest = write_manifest(tmp_path)
    lost = plan(tmp_path, {"id": "before", "manifest": "another"})
    assert not lost.origin
    assert "generators/before holds no checkpoint to go on from" in lost.reason
    same = plan(tmp_path, {"id": "before", "manifest": digest})
    assert same.reason.endswith("before learnt from this very manifest, which has not grown")


@pytest.mark.ci
def test_settings_that_change_what_is_learnt_are_named(workshop: Workshop) -> None:
    write_manifest(workshop.home, train=40)
    first = trained(workshop)
    write_manifest(workshop.home, train=48)
    current = Store(workshop.home).read_json("generators/current.json")
    refused = plan(workshop.home, current, lr_g=0.5)
    assert refused.reason == f"from scratch: {first['digest']}: lr_g was 0.0002, now 0.5"
    assert plan(workshop.home, current, keep_checkpoints=9).origin == first["digest"]


@pytest.mark.parametrize(
    ("device", "processes", "words"),
    [
        ("cpu", 1, "CPU"),
        ("cpu", 2, "CPU, 2 processes"),
        ("NVIDIA H200", 1, "NVIDIA H200"),
        ("NVIDIA H200", 4, "4 x NVIDIA H200"),
    ],
)
def test_the_device_is_told_in_words(device: str, processes: int, words: str) -> None:
    assert device_in_words({"device": device, "processes": processes}) == words
