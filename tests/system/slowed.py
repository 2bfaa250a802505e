"""``snaplib`` with a store whose way can become slow: ``python -m tests.system.slowed FILE ARGUMENT ...``.

FILE says how many bytes a second the store takes, 0 for none at all, and a negative number that it answers nobody; it
may change at any time.  FILE.waited is there once something had to wait because it takes none.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from snaplib.cli import main
from snaplib.store import Store
from snaplib.store.bounded import BoundedBackend
from tests.benchmarks.throttled import Throttled

#: How often to look whether a call may come back.
_LOOK_EVERY_S = 0.02


class Silent:
    """A backend of which some calls do not come back.

    Args:
        backend: The backend.
        is_silent: Whether that is so at present.
    """

    def __init__(self, backend: Any, is_silent: Callable[[], bool]) -> None:
        self._backend = backend
        self._is_silent = is_silent

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._backend, name)
        if not callable(found) or name in ("limit_by", "throughput"):
            return found

        def call(*arguments: Any, **options: Any) -> Any:
            while self._is_silent():
                time.sleep(_LOOK_EVERY_S)
            return found(*arguments, **options)

        return call


def slowed_main() -> int:
    """Run the command with such a store."""
    file, *arguments = sys.argv[1:]

    def told() -> float:
        # Just when it is being written it is empty.
        return float(Path(file).read_text() or 0)

    def bytes_per_s() -> float:
        found = max(0.0, told())
        if not found:
            Path(f"{file}.waited").touch()
        return found

    def open_slowed(url: str | os.PathLike[str], *, create: bool = True, **_more: Any) -> Store:
        slow = Silent(Throttled(Path(url), bytes_per_s), lambda: told() < 0)
        return Store.over(BoundedBackend(slow), create=create)

    Store.open = open_slowed  # type: ignore[method-assign,assignment]
    return main(arguments)


if __name__ == "__main__":
    sys.exit(slowed_main())
