"""The page of comparisons is written from a home's reports, and twice the same."""

import json
from pathlib import Path

import pytest

from benchmarks import comparison_page
from models.comparison.sets import SETS
from tests.models.comparison.test_report import PLAN, outcome

pytestmark = pytest.mark.slow

TEXT = "# Page\n\n<!-- srresnet_losses -->\nold\n<!-- end of srresnet_losses -->\n\nEnd.\n"


def comparison(home: Path, name: str, sets: list[str], distances: list[float]) -> None:
    folder = home / "comparisons" / name
    folder.mkdir(parents=True)
    rows = [outcome(f"e{number}", distance) for number, distance in enumerate(distances)]
    result = {"plan": PLAN | {"sets": sets}, "best": "e0", "entrants": rows}
    (folder / "results.json").write_text(json.dumps(result))
    (folder / "grids.jpg").write_bytes(b"grids of " + name.encode())


def test_the_report_of_a_set_stands_between_its_marks(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    home, root = tmp_path / "home", tmp_path / "root"
    (root / "docs").mkdir(parents=True)
    page = root / "docs" / "comparison.md"
    page.write_text(TEXT)
    comparison(home, "a", ["srresnet_losses"], [1.0] * len(SETS["srresnet_losses"]))
    comparison(home, "b", ["srresnet_losses"], [1.0])  # with an entrant of its own left out
    comparison(home, "c", ["families", "srresnet_losses"], [1.0] * 10)
    comparison(home, "d", ["families"], [1.0] * 6)  # which the page has no place for
    command = ["--home", str(home), "--to", str(root)]
    assert comparison_page.main(command) == 0
    result = json.loads(capfd.readouterr().out.splitlines()[-1])
    assert result == {"page": "docs/comparison.md", "best": {"srresnet_losses": "e0"}}

    text = page.read_text()
    assert text.startswith("# Page\n\n<!-- srresnet_losses -->\n4 entrants, 5 minutes")
    assert text.endswith("<!-- end of srresnet_losses -->\n\nEnd.\n")
    assert "old" not in text
    assert "](images/comparison/srresnet_losses-grids.jpg)" in text
    copied = root / "docs" / "images" / "comparison" / "srresnet_losses-grids.jpg"
    assert copied.read_bytes() == b"grids of a"
    figures = json.loads((root / "benchmarks/results/comparison-srresnet_losses.json").read_text())
    assert len(figures["entrants"]) == 4

    assert comparison_page.main(command) == 0
    assert page.read_text() == text


def test_a_home_or_page_without_a_place_is_reported(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "comparison.md").write_text("# Page\n")
    command = ["--home", str(tmp_path / "home"), "--to", str(tmp_path)]
    assert comparison_page.main(command) == 7
    assert "holds no comparison" in capfd.readouterr().err
    comparison(tmp_path / "home", "a", ["families"], [1.0] * 6)
    assert comparison_page.main(command) == 2
    assert "has no <!-- SET --> for a report of families" in capfd.readouterr().err
    (tmp_path / "docs" / "comparison.md").write_text("<!-- families -->\n")
    assert comparison_page.main(command) == 2
    assert "has no <!-- end of families --> after <!-- families -->" in capfd.readouterr().err
