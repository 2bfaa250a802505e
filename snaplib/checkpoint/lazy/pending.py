"""Whether memory of a task is still on its way: until it is there, the task cannot be dumped.

CRIU dumps the pages that are there.  Those that are missing it would take for pages that never were, and they would
read as zeros ever after.  So a note lies in the session's folder for as long as somebody serves the task.
"""

from __future__ import annotations

import os
import select
from pathlib import Path

from snaplib.errors import CannotDump, DeadlineExceeded

__all__ = ["note_lazy", "wait_for_memory"]

_NOTE = "lazy"


def note_lazy(folder: Path, helper_pid: int) -> Path:
    """Note that a task's memory is on its way.

    Args:
        folder: The session's.
        helper_pid: The process that serves it, which removes the note.

    Returns:
        The note.
    """
    note = folder / _NOTE
    note.write_text(str(helper_pid))
    return note


def wait_for_memory(folder: Path, timeout_s: float) -> None:
    """Wait until a task's memory is all there.

    Args:
        folder: The session's.
        timeout_s: How long to wait.

    Raises:
        DeadlineExceeded: It is not by then.
        CannotDump: It never will be.
    """
    note = folder / _NOTE
    try:
        helper = os.pidfd_open(int(note.read_text()))
    except FileNotFoundError:
        return
    except ProcessLookupError:
        helper = -1
    if helper >= 0:
        try:
            poll = select.poll()
            poll.register(helper, select.POLLIN)
            if not poll.poll(timeout_s * 1000):
                raise DeadlineExceeded(
                    f"the task's memory had not come back from its last snapshot after {timeout_s:.3g} s; it runs on",
                    hint="restore without --lazy where the next notice may come soon",
                )
        finally:
            os.close(helper)
    if note.exists():
        raise CannotDump(
            "the process that served the task's memory has died, and part of the memory with it",
            hint="end the task and restore it again",
        )
