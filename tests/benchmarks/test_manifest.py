"""The benchmark of labels and manifest ends with one line of JSON."""

import json

import pytest

from benchmarks import manifest

pytestmark = pytest.mark.slow


def test_line_has_value_unit_and_peak(capsys: pytest.CaptureFixture[str]) -> None:
    manifest.main(["--rows", "600", "--tags", "12"])
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (told["benchmark"], told["unit"], told["rows"], told["tags"]) == (
        "manifest", "s", 600, 12
    )  # fmt: skip
    assert told["value"] == pytest.approx(told["labels_s"] + told["manifest_s"], abs=0.02)
    assert 15 <= told["labels"] <= 23
    assert 50 < told["peak_mb"] < 400
