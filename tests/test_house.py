"""Rules of the house that no linter knows."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = sorted((ROOT / "noria").rglob("*.py"))
HEAVY = ("torch", "transformers", "pyspark", "mlflow", "xllamacpp", "sqlalchemy", "pyarrow", "fastapi", "numpy")


@pytest.mark.parametrize(
    "code", ["import noria", "import noria.apps.cli", "import noria.types, noria.ports, noria.stage"]
)
def test_importing_loads_nothing_heavy(code: str) -> None:
    check = f"import sys; {code}; print([name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("file", MODULES, ids=lambda file: str(file.relative_to(ROOT)))
def test_files_and_functions_stay_short(file: Path) -> None:
    text = file.read_text()
    limit = {"types.py": 400, "ports.py": 250}.get(file.name, 500)
    assert text.count("\n") <= limit
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 60, node.name
        assert not isinstance(node, ast.Global), f"global at line {node.lineno}"


@pytest.mark.parametrize("name", ["ports.py", "stores.py"])
def test_a_port_has_six_methods_at_most(name: str) -> None:
    tree = ast.parse((ROOT / "noria" / name).read_text())
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and any(getattr(base, "id", "") == "Protocol" for base in node.bases):
            methods = [each for each in node.body if isinstance(each, ast.FunctionDef)]
            assert len(methods) <= 6, node.name


def test_the_readme_shows_every_room_with_its_purpose() -> None:
    readme = (ROOT / "README.md").read_text()
    rooms = [*(ROOT / "noria").glob("*.py"), *(ROOT / "noria").glob("*/__init__.py")]
    for file in rooms:
        if file.parent == ROOT / "noria" and file.stem.startswith("__"):
            continue
        name = file.name if file.parent == ROOT / "noria" else f"{file.parent.name}/"
        purpose = (ast.get_docstring(ast.parse(file.read_text())) or "").splitlines()[0]
        assert f"noria/{name:14} {purpose}" in readme
