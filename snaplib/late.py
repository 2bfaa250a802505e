"""Packages whose modules are imported when something of theirs is first asked for.

Start-up time counts when a machine has seconds left, and what is not imported takes no memory.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Mapping
from typing import Any

__all__ = ["late"]


def late(
    package: str, homes: Mapping[str, str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Return what a package is to have as ``__getattr__`` and ``__dir__``.

    Args:
        package: Its name.
        homes: By public name the module it comes from, whole or from the package on (``.store``).
    """

    def find(name: str) -> Any:
        if name not in homes:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        found = getattr(importlib.import_module(homes[name], package), name)
        setattr(sys.modules[package], name, found)
        return found

    def names() -> list[str]:
        return sorted({*vars(sys.modules[package]), *homes})

    return find, names
