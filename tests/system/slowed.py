"""``snaplib`` with a store whose way can become slow: ``python -m tests.system.slowed FILE ARGUMENT ...``.

FILE says how many bytes a second the store takes, 0 for none at all; it may change at any time.  FILE.waited is there
once something had to wait because it takes none.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from snaplib.cli import main
from snaplib.store import Store
from tests.benchmarks.throttled import Throttled


def slowed_main() -> int:
    """Run the command with such a store."""
    file, *arguments = sys.argv[1:]

    def bytes_per_s() -> float:
        # Just when it is being written it is empty.
        found = float(Path(file).read_text() or 0)
        if not found:
            Path(f"{file}.waited").touch()
        return found

    def open_slowed(url: str | os.PathLike[str], *, create: bool = True, **_more: Any) -> Store:
        return Store.over(Throttled(Path(url), bytes_per_s), create=create)

    Store.open = open_slowed  # type: ignore[method-assign,assignment]
    return main(arguments)


if __name__ == "__main__":
    sys.exit(slowed_main())
