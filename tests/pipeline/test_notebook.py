"""The notebook runs from its first to its last cell, on the home of the demo."""

import os
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.pipeline.conftest import POST_COUNT, SMOKE, Demo, clean_environment

NOTEBOOK = Path(__file__).resolve().parents[2] / "notebooks/quickstart.ipynb"


@pytest.mark.slow
def test_the_notebook_runs_and_draws_with_the_champion(
    demo: Demo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    source = "\n".join(cell.source for cell in notebook.cells)
    # The demo's own settings: its stages are up to date, and each is skipped.
    assert SMOKE in source
    assert f"--posts {POST_COUNT} " in source
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    runner = NotebookClient(
        notebook, timeout=600, resources={"metadata": {"path": str(NOTEBOOK.parent)}}
    )
    path = os.pathsep.join([str(NOTEBOOK.parents[1]), os.environ.get("PYTHONPATH", "")])
    runner.execute(
        env={
            **clean_environment(),
            "OMOKAGE_HOME": str(demo.home),
            "PYTHONPATH": path,
            "TMPDIR": str(tmp_path),
        }
    )
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", ())]
    said = "".join(output.get("text", "") for output in outputs)
    assert "champion   models:/avatar-generator@champion is version 1" in said
    assert sum("image/png" in output.get("data", ()) for output in outputs) == 2
