"""The arrows of docs/architecture.md: who imports whom, in the whole library."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import snaplib

PACKAGE = Path(snaplib.__file__).parent
PAGE = PACKAGE.parent / "docs/architecture.md"

PROGRAM = "checkpoint/shimproof/program.py"

#: With the init of a session what is run as a script, or loaded by one.
ALONE = ("kernel/guardian.py", "kernel/isolation.py", "kernel/syscalls.py", PROGRAM)

#: Has everybody's names, of which others take the version.
TOP = "__init__"


def layers() -> dict[str, int]:
    """The height of each package and module, as the page has it."""
    found = re.search(r"lines below its own:\n\n```text\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert found is not None
    lines = found[1].splitlines()
    heights = {name: -at for at, line in enumerate(lines) for name in line.split()}
    assert len(heights) == sum(len(line.split()) for line in lines)
    return heights


def modules() -> Iterator[tuple[str, ast.Module]]:
    """All modules, by their paths in the package."""
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path.relative_to(PACKAGE).as_posix(), ast.parse(path.read_text())


def imported(tree: ast.Module) -> Iterator[str]:
    """The dotted names that a module imports, be it late or for types alone."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (name.name for name in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{name.name}" for name in node.names)


def part(path: str) -> str:
    """The package that a module is in, or the module itself."""
    return path.partition("/")[0].removesuffix(".py")


def test_every_part_is_in_the_order() -> None:
    """None is left out, and none is named that is not there."""
    parts = {part(path) for path, _ in modules()} - {TOP, "__main__"}
    assert layers().keys() == parts


def test_arrows_go_one_way() -> None:
    """Whoever imports is above what he imports."""
    heights = layers()
    wrong = []
    for path, tree in modules():
        above = part(path)
        if above in (TOP, "__main__"):
            continue
        for name in imported(tree):
            package, _, rest = name.partition(".")
            below = rest.partition(".")[0]
            # `import snaplib` alone is for where it lies.
            if package != "snaplib" or below in (above, "__version__", ""):
                continue
            if heights[below] >= heights[above]:
                wrong.append(f"{path} imports {name}")
    assert not wrong


def test_only_the_kernel_package_has_ctypes() -> None:
    """And one program, which is a task to be dumped."""
    users = {path for path, tree in modules() if "ctypes" in map(root, imported(tree))}
    assert {path for path in users if not path.startswith("kernel/")} == {PROGRAM}


def test_what_runs_alone_takes_only_the_standard_library_along() -> None:
    """An init must outlive an upgrade of what is installed, and take little memory."""
    own = re.compile(r"snaplib\.(session\.nsinit|kernel\.(isolation|syscalls))\b")
    found = [
        f"{path} imports {name}"
        for path, tree in modules()
        if path.startswith("session/nsinit/") or path in ALONE
        for name in imported(tree)
        if not own.match(name) and root(name) not in sys.stdlib_module_names
    ]
    assert not found


def root(name: str) -> str:
    """The first part of a dotted name."""
    return name.partition(".")[0]
