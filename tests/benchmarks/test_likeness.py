"""The benchmarks of likeness and of the crop stage's memory end with one line of JSON."""

import json

import pytest

from benchmarks import faces_memory, likeness

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("new", ["0", "200"])
def test_every_made_up_copy_is_found(new: str, capfd: pytest.CaptureFixture[str]) -> None:
    likeness.main(["--hashes", "800", "--new", new])
    result = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert (result["benchmark"], result["unit"], result["hashes"]) == ("likeness", "s", 800)
    assert result["value"] == max(kind["seconds"] for kind in result["kinds"].values())
    assert set(result["kinds"]) == {"random", "clustered", "equal"}
    for kind in result["kinds"].values():
        assert kind["found"] == kind["copies"]


def test_no_made_up_picture_repeats_another(capfd: pytest.CaptureFixture[str]) -> None:
    faces_memory.main(["--pictures", "40", "60", "--compute", "threads:1"])
    result = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert result["benchmark"] == "faces_memory"
    assert [result["pictures"][count]["kept"] for count in ("40", "60")] == [40, 60]
    assert result["value"] == pytest.approx(1, abs=0.2)
