"""Resumes a frozen task when nobody else does.

A small process beside the one that freezes. It is told beforehand what will be frozen and until
when, and resumes it at that deadline, or as soon as the freezing process has ended, however it
ended. Started as a script with ``python -I -S``: it may import only what the standard library has
and must not import snaplib.

It reads lines from its standard input:

- ``arm DEADLINE``: CLOCK_MONOTONIC seconds at which it is to resume all that follows
- ``write PATH TEXT``: resume by writing TEXT to PATH (a freezer file; PATH in hexadecimal)
- ``continue PID START_TICKS``: resume by sending SIGCONT, if the process is still the same
- ``disarm``: all is resumed; forget it

and prints ``ready`` once when it listens, and ``fired`` when it has resumed something itself.
"""

from __future__ import annotations

import os
import select
import signal
import sys
import time

__all__ = ["main"]

#: poll(2) takes an int; what is longer is looked at again.
_LONGEST_MS = 2**31 - 1


class _Watch:
    """What is frozen, and until when."""

    def __init__(self) -> None:
        self.deadline: float | None = None
        self.writes: list[tuple[str, str]] = []
        self.stopped: list[tuple[int, int]] = []

    def clear(self) -> None:
        self.deadline = None
        self.writes.clear()
        self.stopped.clear()

    def obey(self, line: str) -> None:
        word, *arguments = line.split()
        if word == "arm":
            self.deadline = float(arguments[0])
        elif word == "write":
            self.writes.append((os.fsdecode(bytes.fromhex(arguments[0])), arguments[1]))
        elif word == "continue":
            self.stopped.append((int(arguments[0]), int(arguments[1])))
        elif word == "disarm":
            self.clear()

    def resume(self) -> None:
        """Resume everything, going on after what fails: the rest must run again."""
        for path, text in self.writes:
            try:
                _write(path, text)
            except OSError as error:
                _say(f"failed {path}: {error}")
        # Children before parents, so that no parent's wait() sees a stopped child.
        for pid, start_ticks in reversed(self.stopped):
            try:
                _continue(pid, start_ticks)
            except OSError as error:
                _say(f"failed {pid}: {error}")
        self.clear()


def _write(path: str, text: str) -> None:
    descriptor = os.open(path, os.O_WRONLY)
    try:
        os.write(descriptor, text.encode())
    finally:
        os.close(descriptor)


def _say(text: str) -> None:
    try:
        os.write(1, f"{text}\n".encode())
    except OSError:
        # Nobody listens any more, which is just when the rest of the work matters.
        return


def _continue(pid: int, start_ticks: int) -> None:
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    try:
        # The pidfd first, the question after: then the answer is about the process it holds.
        with open(f"/proc/{pid}/stat", "rb") as file:  # noqa: PTH123 - starts without pathlib
            fields = file.read().rpartition(b")")[2].split()
        if int(fields[19]) == start_ticks:
            signal.pidfd_send_signal(pidfd, signal.SIGCONT)
    except (FileNotFoundError, ProcessLookupError):
        return
    finally:
        os.close(pidfd)


def main() -> None:
    """Serve one freezing process until it ends."""
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGTSTP):
        signal.signal(number, signal.SIG_IGN)
    if os.getppid() != int(sys.argv[1]):
        return  # it has ended already
    parent = os.pidfd_open(os.getppid())
    poller = select.poll()
    poller.register(0, select.POLLIN)
    # A child forked by our parent may hold the pipe open after the parent is dead.
    poller.register(parent, select.POLLIN)
    watch, pending = _Watch(), b""
    _say("ready")
    while True:
        timeout_ms = None
        if watch.deadline is not None:
            left_s = max(0.0, watch.deadline - time.monotonic())
            timeout_ms = min(left_s * 1000, _LONGEST_MS)
        events = dict(poller.poll(timeout_ms))
        if 0 in events:
            chunk = os.read(0, 65536)
            pending += chunk
            *lines, pending = pending.split(b"\n")
            for line in lines:
                watch.obey(line.decode())
            if not chunk:
                break
        elif parent in events:
            break
        if watch.deadline is not None and time.monotonic() >= watch.deadline:
            watch.resume()
            _say("fired")
    watch.resume()


if __name__ == "__main__":
    main()
