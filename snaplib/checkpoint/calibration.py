"""Measures this host and the way to a store: real dumps of small tasks of different kinds."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import attrs

from snaplib.checkpoint.compressibility import sample_compression
from snaplib.checkpoint.dumping import dump
from snaplib.checkpoint.noting import CALIBRATION
from snaplib.errors import DumpFailed
from snaplib.forecasting import DumpRecord
from snaplib.history import History, forecast
from snaplib.observe import Watch
from snaplib.store import Store
from snaplib.task import Task

__all__ = ["Calibration", "Subject", "calibrate"]

_MIB = 1 << 20

#: Fills memory, a share of it with bytes that do not compress, opens files, starts threads and processes, says
#: so, and sleeps.
_PROGRAM = """
import mmap, os, sys, threading
size, random_percent, threads, descriptors, processes = map(int, sys.argv[1:])
def fill(size):
    memory = mmap.mmap(-1, max(size, 4096), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    piece = 1 << 16
    text = (b"chr1\\t%09d\\t60\\t100M\\t=\\tACGTTGCAACGT\\tIIIIIIIIIIII\\n" * (piece // 40))[: piece + 64]
    for number, at in enumerate(range(0, size, piece)):
        if number * random_percent % 100 < random_percent:
            memory[at : at + piece] = os.urandom(min(piece, size - at))
        else:
            memory[at : at + piece] = text[number % 61 :][: min(piece, size - at)]
    return memory
kept = [open("/dev/null") for _ in range(descriptors)]
for _ in range(threads - 1):
    threading.Thread(target=threading.Event().wait, daemon=True).start()
ready, done = os.pipe()
for _ in range(processes - 1):
    if not os.fork():
        os.close(ready)
        memory = fill(size // processes)
        os.write(done, b"x")
        os.close(done)
        threading.Event().wait()
memory = fill(size // processes)
for _ in range(processes - 1):
    os.read(ready, 1)
print("ready", flush=True)
threading.Event().wait()
"""


@attrs.frozen
class Subject:
    """A task to be dumped.

    Attributes:
        name: What its records are called.
        size_bytes: Its memory.
        random_percent: How much of that does not compress.
        threads: Of its first process.
        descriptors: Of each process.
        processes: How many it has.
    """

    name: str
    size_bytes: int
    random_percent: int = 50
    threads: int = 1
    descriptors: int = 0
    processes: int = 1


#: From small to large, so that what there is time for tells most.
_SUBJECTS = (
    Subject("small", 4 * _MIB),
    Subject("plain", 96 * _MIB),
    Subject("many", 48 * _MIB, threads=40, descriptors=400, processes=6),
    Subject("text", 192 * _MIB, random_percent=5),
    Subject("random", 192 * _MIB, random_percent=100),
    Subject("small", 4 * _MIB),
    Subject("large", 448 * _MIB),
    Subject("many", 48 * _MIB, threads=40, descriptors=400, processes=6),
    Subject("plain", 96 * _MIB),
)


@attrs.frozen
class Calibration:
    """What was measured.

    Attributes:
        records: A record for each dump.
        seconds: How long all of it took.
        cut_short: Whether there was time for fewer dumps than were planned.
    """

    records: tuple[DumpRecord, ...]
    seconds: float
    cut_short: bool


def calibrate(
    store: Store,
    *,
    budget_s: float = 30.0,
    subjects: tuple[Subject, ...] = _SUBJECTS,
    progress: Callable[[str, int, int], None] | None = None,
) -> Calibration:
    """Dump some tasks of our own, note what that takes, and remove them again.

    Args:
        store: Where to.
        budget_s: No further dump is begun after so many seconds.
        subjects: What is dumped.
        progress: Called with what is dumped next, its number from 1 on, and how many there are.

    Raises:
        SnaplibError: This host cannot dump, or the store cannot be used.
    """
    began = time.monotonic()
    earlier = len(History().records())
    done = 0
    for subject in subjects:
        spent_s = time.monotonic() - began
        # The next takes at least as long as those before did.
        if done and spent_s + spent_s / done > budget_s:
            break
        if progress is not None:
            progress(subject.name, done + 1, len(subjects))
        _measure(subject, store, max(4 * budget_s, 60.0))
        done += 1
    records = (
        tuple(one for one in History().records()[earlier:] if one.origin == "calibration")
        or tuple(one for one in History().records() if one.origin == "calibration")[-done:]
    )
    return Calibration(records, time.monotonic() - began, done < len(subjects))


def _measure(subject: Subject, store: Store, deadline_s: float) -> None:
    with _running(subject) as pid:
        key = f"{CALIBRATION}-{subject.name}"
        task = Task.attach(pid)
        with Watch(task, arm="none") as watch:
            expected = forecast(watch.profile(), store=store, sample=sample_compression(task))
        snapshot = dump(
            task, store, key=key, plan=expected, leave_running=True, deadline_s=deadline_s
        )
        store.remove(snapshot.id)


@contextlib.contextmanager
def _running(subject: Subject) -> Iterator[int]:
    process = subprocess.Popen(
        [
            sys.executable,
            *("-I", "-S", "-c", _PROGRAM),
            str(subject.size_bytes),
            str(subject.random_percent),
            str(subject.threads),
            str(subject.descriptors),
            str(subject.processes),
        ],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    try:
        assert process.stdout is not None
        if process.stdout.readline() != b"ready\n":
            raise DumpFailed("the task to be measured did not start", hint="is there memory left?")
        yield process.pid
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a task with its processes: the group is its own."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    if process.stdout is not None:
        process.stdout.close()
