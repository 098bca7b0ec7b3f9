"""Imports only ever go down the layers."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent

# Each package with those that it may import. dataset is the lowest of its layer: crawlers and
# models import it, never each other.
MAY_IMPORT = {
    "pipeline": {"assets", "studio", "crawlers", "dataset", "models", "demo"},
    "assets": {"crawlers", "dataset", "models"},
    "studio": {"dataset", "models"},
    "crawlers": {"dataset"},
    "models": {"dataset"},
    "dataset": set(),
    "demo": set(),
}
ELSEWHERE = {"benchmarks", "tests"}

# Libraries that a package must do without, so that it runs alone where they are not installed.
NEVER = {
    "studio": {"dagster", "scrapy"},
    "crawlers": {"dagster", "mlflow", "torch"},
    "models": {"click", "dagster", "pydantic", "scrapy"},
    "dataset": {"dagster", "mlflow", "scrapy", "torch"},
    "demo": {"dagster", "mlflow", "scrapy", "torch"},
}


def imported(file: Path) -> Iterator[tuple[str, int]]:
    """Yields the top-level name and line of every import of a file, nested ones too."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name.split(".")[0], node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}:{node.lineno} is relative: name the package"
            yield (node.module or "").split(".")[0], node.lineno


@pytest.mark.parametrize("package", MAY_IMPORT)
def test_imports_only_go_down(package: str) -> None:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files, f"{package}/ holds no Python"
    forbidden = ({*MAY_IMPORT, *ELSEWHERE} - MAY_IMPORT[package] - {package}) | NEVER.get(
        package, set()
    )
    found = [
        f"{file.relative_to(ROOT)}:{line} imports {name}"
        for file in files
        for name, line in imported(file)
        if name in forbidden
    ]
    assert found == []


def test_gradio_is_imported_for_the_page_alone() -> None:
    files = [file for package in MAY_IMPORT for file in sorted((ROOT / package).rglob("*.py"))]
    found = {
        file.relative_to(ROOT).parent.as_posix()
        for file in files
        for name, _ in imported(file)
        if name in ("gradio", "gradio_client")
    }
    assert found == {"studio/web"}


def test_models_import_mlflow_for_the_trainer_and_the_registry_alone() -> None:
    found = {
        file.relative_to(ROOT / "models").parts[0]
        for file in (ROOT / "models").rglob("*.py")
        for name, _ in imported(file)
        if name == "mlflow"
    }
    # The trainer logs its losses by itself: it also runs where nothing of the registry is used.
    assert found - {"tracking.py", "training"} == {"registry"}


def test_every_package_has_a_layer() -> None:
    packages = {path.parent.name for path in ROOT.glob("*/__init__.py")}
    assert packages - ELSEWHERE == set(MAY_IMPORT)
