"""A dump and a restore of a small child, for real: the one proof that this host can do it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time

import attrs

from snaplib.checkpoint.dumping import dump
from snaplib.checkpoint.restoring import restore
from snaplib.errors import SnaplibError
from snaplib.scratch import scratch_dir
from snaplib.store import Store
from snaplib.task import Task

__all__ = ["Trial", "dump_and_restore_trial"]

_DEADLINE_S = 120.0
_REMEDY = "see the other features, and what `criu check --all` says"

#: What it ends with shows that its memory and its place in the program have come back.
_CHILD = """
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
count = 41
print("ready", flush=True)
signal.sigwait({signal.SIGUSR1})
raise SystemExit(count + 1)
"""


@attrs.frozen
class Trial:
    """How it went.

    Attributes:
        ok: Whether the child came back to life as it was.
        detail: Figures, or what failed.
        remedy: What to do about it; empty if it worked.
    """

    ok: bool
    detail: str
    remedy: str = ""


def dump_and_restore_trial() -> Trial:
    """Launch a small child, dump it, restore it, and see whether it goes on where it was.

    Nothing is left behind: the child, its session and the store of this one snapshot are gone afterwards.
    """
    nowhere = subprocess.DEVNULL
    with scratch_dir("trial") as folder:
        tasks: list[Task] = []
        try:
            store = Store.open(str(folder / "store"), create=True)
            tasks.append(_launch())
            began = time.monotonic()
            snapshot = dump(tasks[0], store, deadline_s=_DEADLINE_S)
            dumped = time.monotonic()
            tasks.append(restore(store, snapshot.id, stdin=nowhere, stdout=nowhere, stderr=nowhere))
            restored = time.monotonic()
            return _judge(tasks[1], dumped - began, restored - dumped)
        except (SnaplibError, TimeoutError) as error:
            remedy = error.hint if isinstance(error, SnaplibError) else ""
            return Trial(False, str(getattr(error, "message", error)), remedy or _REMEDY)
        finally:
            for task in tasks:
                if task.session is not None:
                    task.session.discard()


def _launch() -> Task:
    """Start the child, and wait until it is where it can be asked."""
    reading, writing = os.pipe2(os.O_CLOEXEC)
    nowhere = subprocess.DEVNULL
    with os.fdopen(reading, "rb") as ready:
        try:
            task = Task.launch(
                [sys.executable, "-I", "-S", "-c", _CHILD],
                stdin=nowhere,
                stdout=writing,
                stderr=nowhere,
            )
        finally:
            os.close(writing)
        ready.readline()
    return task


def _judge(task: Task, dump_s: float, restore_s: float) -> Trial:
    task.signal(signal.SIGUSR1)
    status = task.wait(_DEADLINE_S)
    if status is None or status.exit_code != 42:
        return Trial(False, f"the child came back, but not as it was: {status}", _REMEDY)
    return Trial(True, f"dumped in {dump_s * 1000:.0f} ms, restored in {restore_s * 1000:.0f} ms")
