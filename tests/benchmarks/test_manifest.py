"""The benchmark of labels and manifest ends with one line of JSON."""

import json

import pytest

from benchmarks import manifest

pytestmark = pytest.mark.slow


def test_line_has_value_unit_and_peak(capsys: pytest.CaptureFixture[str]) -> None:
    manifest.main(["--rows", "600", "--tags", "12"])
    result = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert (result["benchmark"], result["unit"], result["rows"], result["tags"]) == (
        "manifest", "s", 600, 12
    )  # fmt: skip
    assert result["value"] == pytest.approx(result["labels_s"] + result["manifest_s"], abs=0.02)
    assert 15 <= result["labels"] <= 23
    assert 50 < result["peak_mb"] < 400
