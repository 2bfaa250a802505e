"""Every module says what is public in it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import snaplib

SOURCE = Path(snaplib.__file__).parent
MODULES = sorted(
    path for path in SOURCE.rglob("*.py") if path.name not in ("__main__.py", "guardian.py")
)


def sort_key(name: str) -> tuple[int, str]:
    """Sort as ruff does (RUF022): constants, then classes, then the rest."""
    return (0 if name.isupper() else 1 if name[0].isupper() else 2), name


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SOURCE)))
def test_all_names_what_is_documented(path: Path) -> None:
    """A class or function without an underscore is in ``__all__``, and ``__all__`` is sorted."""
    tree = ast.parse(path.read_text())
    defined = {
        node.name
        for node in tree.body
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_")
    }
    named = [
        [element.value for element in node.value.elts if isinstance(element, ast.Constant)]
        for node in tree.body
        if isinstance(node, ast.Assign)
        and isinstance(node.targets[0], ast.Name)
        and node.targets[0].id == "__all__"
        and isinstance(node.value, ast.List | ast.Tuple)
    ]
    public = named[0] if named else []
    assert defined - set(public) == set()
    assert public == sorted(public, key=sort_key)
    assert ast.get_docstring(tree), "no docstring"


def test_the_public_api_can_be_imported() -> None:
    """Each name of the package is there, and comes when it is asked for."""
    for name in snaplib.__all__:
        assert getattr(snaplib, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = snaplib.nothing
