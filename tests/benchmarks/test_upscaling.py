"""The benchmark of upscaling: its line, and that what it compares is the same picture."""

import json

import pytest

from benchmarks.upscaling import main

pytestmark = pytest.mark.slow


def test_ours_and_the_bare_loop_make_the_same_picture(capsys: pytest.CaptureFixture[str]) -> None:
    main(["--rounds", "1"])
    result = json.loads(capsys.readouterr().out)
    assert result["benchmark"] == "upscaling"
    assert list(result["cases"]) == ["64 to 128 px", "128 to 256 px", "128 to 512 px"]
    for name, case in result["cases"].items():
        assert 0 < case["bicubic_core_s"] < case["ours_core_s"], name
        # Twice 2x rounds twice: a value that fell to the other side at first goes on.
        assert case["most_apart_of_255"] <= (2 if name == "128 to 512 px" else 1), name
