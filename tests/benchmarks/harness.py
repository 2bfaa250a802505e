"""What benchmarks share: interleaved rounds, medians, and a task of known size."""

from __future__ import annotations

import contextlib
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

#: Fills memory, half of it with bytes that cannot be compressed and half with text, in runs of 16 pages; says so;
#: sleeps.  Real heaps lie between the two.
_HOG = """
import mmap, os, sys, time
size = int(sys.argv[1])
memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
memory.madvise(mmap.MADV_NOHUGEPAGE)
run = 16 * 4096
text = (b"chr1\\t%09d\\t60\\t100M\\t=\\tACGTTGCAACGT\\tIIIIIIIIIIII\\n" * (run // 40))[: run * 2]
for at in range(0, size, 2 * run):
    memory[at : at + run] = os.urandom(run)
    shift = at // run % 37
    memory[at + run : at + 2 * run] = text[shift : shift + run]
print("ready", flush=True)
while True:
    time.sleep(3600)
"""


@contextlib.contextmanager
def memory_hog(size_bytes: int) -> Iterator[int]:
    """Give the pid of a sleeping process with that much private memory, in 4 KiB pages."""
    process = subprocess.Popen(
        [sys.executable, "-I", "-S", "-c", _HOG, str(size_bytes)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
        text=True,
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        yield process.pid
    finally:
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def interleaved(
    rounds: int,
    candidates: Mapping[str, Callable[[], None]],
    *,
    tidy: Callable[[], None] = lambda: None,
    settle_s: float = 0.5,
) -> dict[str, list[float]]:
    """Time candidates in turn, A B A B ..., after one uncounted round.

    Args:
        rounds: How many counted rounds.
        candidates: What to time, by name.
        tidy: Called before each, untimed.
        settle_s: How long to wait before each.

    Returns:
        Seconds of wall time of each.
    """
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for number in range(rounds + 1):
        for name, work in candidates.items():
            tidy()
            # What the one before left to be written back must not be paid by the next.
            os.sync()
            time.sleep(settle_s)
            began = time.monotonic()
            work()
            if number:
                seconds[name].append(time.monotonic() - began)
    return seconds


def ratio(ours: list[float], theirs: list[float]) -> float:
    """Return the median of the ratios pair by pair: the machine's speed drifts."""
    return statistics.median(a / b for a, b in zip(ours, theirs, strict=True))


def spread(seconds: list[float]) -> str:
    """Return median [min-max] in milliseconds."""
    return f"{statistics.median(seconds) * 1000:.0f} [{min(seconds) * 1000:.0f}-{max(seconds) * 1000:.0f}]"


def peak_kib(pid: int) -> int:
    """Return the most memory that a process has had since it executed its program.

    What wait4 tells counts from before that, when it was a copy of us.
    """
    words = Path(f"/proc/{pid}/status").read_text().split()
    return int(words[words.index("VmHWM:") + 1])


@contextlib.contextmanager
def own_peak_mib(peaks: list[float]) -> Iterator[None]:
    """Append the most memory that this process has while in the block, what it had before included."""
    # proc_pid_clear_refs(5): the peak begins anew.
    Path("/proc/self/clear_refs").write_text("5")
    yield
    peaks.append(peak_kib(os.getpid()) / 1024)


def machine() -> str:
    """Say on what the figures were measured."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    model = models[0] if models else platform.machine()
    return f"{model}, {os.cpu_count()} CPUs, {memory:.0f} GiB, Linux {platform.release().split('-')[0]}"
