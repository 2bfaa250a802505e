"""Writes numbered lines to standard output, and every tenth number to standard error; fast enough to fill pipes.

Usage: numbered.py LINES [PAUSE_S].  Every number must arrive exactly once, in order.
"""

from __future__ import annotations

import sys
import time

lines = int(sys.argv[1])
pause_s = float(sys.argv[2]) if len(sys.argv) > 2 else 0.0
for number in range(1, lines + 1):
    print(f"line {number:09d}")
    if number % 10 == 0:
        print(f"tenth {number:09d}", file=sys.stderr)
        sys.stdout.flush()
        if pause_s:
            time.sleep(pause_s)
