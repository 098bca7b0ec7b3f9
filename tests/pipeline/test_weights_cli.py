"""`omokage import-weights`: what it says, where it writes, how it refuses."""

from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from models import sample
from pipeline.cli import cli, main
from tests.models.import_stylegan2 import rosinality_reference as rosinality


def test_it_tells_what_it_made_and_the_samplers_draw_with_it(tmp_path: Path) -> None:
    file = rosinality.save(tmp_path / "g.pt", {"g_ema": rosinality.small().state_dict()})
    out = tmp_path / "imported"
    result = CliRunner().invoke(cli, ["import-weights", str(file), "--out", str(out)])
    assert result.exit_code == 0, result.output
    made = "stylegan2 of 16 px, 6,176 parameters, from rosinality's layout"
    assert result.stdout == f"{out}: {made}\n"
    arguments = ["--generator", str(out), "--n", "2", "--out", str(tmp_path / "grid.png")]
    assert sample.main(arguments) == 0
    assert (tmp_path / "grid.png").stat().st_size > 0


def test_a_note_goes_to_stderr(tmp_path: Path) -> None:
    state = rosinality.small().state_dict()
    held = {name: one for name, one in state.items() if not name.startswith("noises.")}
    file = rosinality.save(tmp_path / "g.pt", held)
    result = CliRunner().invoke(cli, ["import-weights", str(file), "--out", str(tmp_path / "out")])
    assert result.exit_code == 0, result.output
    assert "note: the file holds no noise maps" in result.stderr


@pytest.mark.parametrize(
    ("name", "held", "code", "message"),
    [
        ("missing.pt", None, 2, "missing.pt is not a file; a .pt or .pkl with weights wanted"),
        ("module.pt", torch.nn.Identity(), 8, "asks for torch.nn.modules.linear.Identity, which"),
    ],
)
def test_a_fault_is_a_line_and_an_exit_code(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    *,
    name: str,
    held: object,
    code: int,
    message: str,
) -> None:
    file = tmp_path / name
    if held is not None:
        torch.save(held, file)
    out = tmp_path / "out"
    monkeypatch.setattr("sys.argv", ["omokage", "import-weights", str(file), "--out", str(out)])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == code
    error = capsys.readouterr().err
    assert error.startswith("omokage: ")
    assert message in error
    assert not out.exists()
