"""The folder mlflow/ at the root does not stand in for the installed package."""

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_mlflow_at_the_root_is_the_installed_package() -> None:
    code = "import mlflow; print(mlflow.__version__, mlflow.__file__)"
    answer = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    version, file = answer.stdout.split()
    assert version.startswith("3.")
    assert ROOT / "mlflow" not in Path(file).parents


def test_the_folder_holds_no_python() -> None:
    assert sorted((ROOT / "mlflow").iterdir())
    assert list((ROOT / "mlflow").rglob("*.py")) == []
