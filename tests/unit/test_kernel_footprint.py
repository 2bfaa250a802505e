"""What this process takes is given back where it can be."""

from __future__ import annotations

import ctypes
import gc
import os
import subprocess
import sys
from types import SimpleNamespace

from snaplib.kernel import footprint
from snaplib.kernel.syscalls import process_vm_read

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


def test_memory_that_was_read_is_not_held_until_somebody_looks_for_cycles() -> None:
    size = 23 << 12
    content = ctypes.create_string_buffer(b"snap" * (size // 4 - 1), size)

    def held() -> int:
        return sum(
            isinstance(one, ctypes.Array) and ctypes.sizeof(one) == size for one in gc.get_objects()
        )

    gc.disable()
    try:
        before = held()
        assert process_vm_read(os.getpid(), ctypes.addressof(content), size) == content.raw
        assert held() == before
    finally:
        gc.enable()
