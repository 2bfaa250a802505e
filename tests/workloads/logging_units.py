"""Writes numbers to standard output and to a file of its own, until a file is there.

Usage: logging_units.py LOG FINISH
"""

from __future__ import annotations

import sys
import time
from pathlib import Path


def main() -> None:
    """Do the work."""
    log_path, finish = map(Path, sys.argv[1:])
    number = 0
    with log_path.open("a") as log:
        while not finish.exists():
            number += 1
            log.write(f"{number}\n")
            log.flush()
            print(number, flush=True)
            time.sleep(0.005)


if __name__ == "__main__":
    main()
