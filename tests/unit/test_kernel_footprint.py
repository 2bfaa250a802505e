"""What this process takes is given back where it can be."""

from __future__ import annotations

import subprocess
import sys
from types import SimpleNamespace

from snaplib.kernel import footprint

RELEASING = """
import numpy as np
from snaplib.kernel.footprint import release_code

def of_files():
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("RssFile"))

assert np.linalg.inv(np.eye(3) * 2)[0, 0] == 0.5
before = of_files()
release_code()
after = of_files()
assert np.linalg.inv(np.eye(3) * 4)[0, 0] == 0.25
print(before, after)
"""


def test_code_that_was_used_is_let_go_of_and_comes_back() -> None:
    result = subprocess.run(
        [sys.executable, "-c", RELEASING], capture_output=True, text=True, check=True
    )
    before, after = map(int, result.stdout.split())
    assert after < before


def test_a_debugger_s_breakpoints_stay(monkeypatch) -> None:
    class Debugged:
        def status(self, _pid: int) -> SimpleNamespace:
            return SimpleNamespace(tracer_pid=23)

    monkeypatch.setattr(footprint, "ProcFs", Debugged)
    footprint.release_code()  # and asks for nothing else
