"""``snaplib``, killed by SIGKILL at one step of its dump of a task.

Usage: dying.py WHEN WHERE ARGUMENT…  WHEN is ``before`` or ``after``; WHERE is ``MODULE:CLASS.METHOD``, whose next call
ends us once a dump has begun, with ``MODULE:CLASS.METHOD@MODULE:CLASS.METHOD`` once the second has returned, and with
``MODULE:CLASS.METHOD@`` at once.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from snaplib.cli import main

_BEGIN = "snaplib.session:Session.hold"


def _find(where: str) -> tuple[type, str]:
    module, _, path = where.partition(":")
    owner, _, name = path.partition(".")
    return getattr(importlib.import_module(module), owner), name


def _wrap(where: str, around: Callable[..., Any]) -> None:
    owner, name = _find(where)
    real = getattr(owner, name)
    setattr(owner, name, lambda *args, **options: around(real, *args, **options))


def _die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def arrange(when: str, where: str) -> None:
    """Have this process killed."""
    where, at, since = where.partition("@")
    armed = not since and (bool(at) or where == _BEGIN)

    def arming(real: Callable[..., Any], *args: Any, **options: Any) -> Any:
        nonlocal armed
        result = real(*args, **options)
        armed = True
        return result

    def dying(real: Callable[..., Any], *args: Any, **options: Any) -> Any:
        if armed and when == "before":
            _die()
        result = real(*args, **options)
        if armed:
            _die()
        return result

    if not armed:
        _wrap(since or _BEGIN, arming)
    _wrap(where, dying)


if __name__ == "__main__":
    arrange(sys.argv[1], sys.argv[2])
    sys.argv[1:] = sys.argv[3:]
    raise SystemExit(main())
