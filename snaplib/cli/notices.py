"""Notices that come while the command is still starting: they are kept until there is somebody to tell."""

from __future__ import annotations

import signal

__all__ = ["NOTICES", "early_notices", "ignore_notices", "keep_notices"]

#: These mean that the window begins.
NOTICES = (signal.SIGTERM, signal.SIGUSR1)

_early: list[int] = []


def keep_notices() -> None:
    """Keep notices from now on, instead of being ended by them."""
    for number in NOTICES:
        signal.signal(number, lambda kept, _frame: _early.append(kept))


def ignore_notices() -> None:
    """Ignore notices from now on: all is over, and the exit status is what still has to be told."""
    for number in NOTICES:
        signal.signal(number, signal.SIG_IGN)


def early_notices() -> list[int]:
    """Return the notices that were kept."""
    return _early
