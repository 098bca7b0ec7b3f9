"""The benchmarks of likeness and of the crop stage's memory end with one line of JSON."""

import json

import pytest

from benchmarks import faces_memory, likeness

pytestmark = pytest.mark.slow


def test_every_made_up_copy_is_found(capfd: pytest.CaptureFixture[str]) -> None:
    likeness.main(["--hashes", "800"])
    told = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert (told["benchmark"], told["unit"], told["hashes"]) == ("likeness", "s", 800)
    assert told["value"] == max(kind["seconds"] for kind in told["kinds"].values())
    assert set(told["kinds"]) == {"random", "clustered", "equal"}
    for kind in told["kinds"].values():
        assert kind["found"] == kind["copies"]


def test_no_made_up_picture_repeats_another(capfd: pytest.CaptureFixture[str]) -> None:
    faces_memory.main(["--pictures", "40", "60", "--compute", "threads:1"])
    told = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert told["benchmark"] == "faces_memory"
    assert [told["pictures"][count]["kept"] for count in ("40", "60")] == [40, 60]
    assert told["value"] == pytest.approx(1, abs=0.2)
