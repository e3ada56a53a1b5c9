"""The package as others see it: its names, and what importing it costs."""

import ast
import subprocess
import sys
from pathlib import Path

import attacks


def test_all_is_sorted_and_complete() -> None:
    """Every listed name exists, in the order ruff's RUF022 would put it."""
    assert len(set(attacks.__all__)) == len(attacks.__all__)
    kinds = [(not name.isupper(), name[0].islower(), name) for name in attacks.__all__]
    assert kinds == sorted(kinds)
    assert all(hasattr(attacks, name) for name in attacks.__all__)


def test_nothing_of_verify_and_no_vanished_module_is_imported() -> None:
    """Trap b5, and the house's rule; numpy and scipy serve the linear programs of refinement."""
    allowed = {"attacks", "torch", "numpy", "scipy"}
    for path in Path(attacks.__file__).parent.glob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0
                names = [node.module or ""]
            for name in names:
                top = name.split(".")[0]
                assert top in allowed or top in sys.stdlib_module_names, (path, name)


def test_importing_loads_nothing_heavy_besides_torch() -> None:
    """In a fresh interpreter."""
    code = (
        "import sys, attacks; "
        "heavy = {'scipy', 'cvxpy', 'onnx', 'onnxruntime', 'sklearn', 'verify', 'pandas'}; "
        "sys.exit(', '.join(sorted(heavy & set(sys.modules))) or 0)"
    )
    root = Path(attacks.__file__).parent.parent
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
