"""Sources on this machine: a file that appears, a command that ends."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Callable, Iterable

from snaplib.errors import NoticeSourceFailed
from snaplib.reclaim.notice import Notice, NoticeKind
from snaplib.reclaim.source import PolledSource, Report

__all__ = ["Command", "FileAppears"]

_END_S = 2.0
_STOP_LOOK_S = 0.2


class FileAppears(PolledSource):
    """Gives notice when a file is there, and takes it back when it is not any more.

    If the file begins with a number, that is how many seconds are left.

    Args:
        path: The file.
        interval_s: Seconds between two looks.
        clock: Tells the time in seconds, never backwards.
    """

    window_s = 120.0

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        interval_s: float = 0.5,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(interval_s=interval_s, clock=clock)
        self.path = os.fspath(path)
        self.name = f"file={self.path}"

    def ask(self) -> Iterable[Notice]:
        """Return a notice if the file is there."""
        try:
            # Some bytes are enough for a number, and whose file it is nobody knows.
            descriptor = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return []
        except OSError as error:
            raise NoticeSourceFailed(
                f"{self.path} cannot be looked at: {error.strerror}"
            ) from error
        try:
            text = os.read(descriptor, 64)
        except OSError:
            # A folder, or a pipe with nothing in it: it is there, and says no time.
            text = b""
        finally:
            os.close(descriptor)
        return [Notice(self.name, _leading_number(text), detail=f"{self.path} is there")]


class Command:
    """Gives notice when a command ends with status 0; with another one it has failed, and is started again.

    If the first thing the command prints is a number, that is how many seconds are left.

    Args:
        command: A line for ``sh -c``.
        pause_s: How long to wait before a failed command is started again.
    """

    window_s = 120.0

    def __init__(self, command: str, *, pause_s: float = 2.0) -> None:
        self.command = command
        self.name = f"command={command}"
        self._pause_s = pause_s

    def watch(self, report: Report, stop: threading.Event) -> None:
        """Run the command until it has ended well."""
        in_trouble = False
        while not stop.is_set():
            process = subprocess.Popen(
                ["sh", "-c", self.command],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            )
            output = self._wait(process, stop)
            if output is None:
                return
            if process.returncode == 0:
                report(
                    Notice(self.name, _leading_number(output), detail=f"{self.command} has ended")
                )
                return
            if not in_trouble:
                in_trouble = True
                status = f"{self.command!r} ends with status {process.returncode}"
                report(Notice(self.name, kind=NoticeKind.TROUBLE, detail=status))
            stop.wait(self._pause_s)

    def _wait(self, process: subprocess.Popen[bytes], stop: threading.Event) -> bytes | None:
        """Return what the command has printed once it has ended; None if it was stopped."""
        while True:
            try:
                return process.communicate(timeout=_STOP_LOOK_S)[0]
            except subprocess.TimeoutExpired:
                if stop.is_set():
                    process.kill()
                    process.communicate()
                    return None

    def acknowledge(self) -> None:
        """It wants to hear nothing."""


def _leading_number(text: bytes) -> float | None:
    words = text.split(maxsplit=1)
    try:
        seconds = float(words[0]) if words else -1.0
    except ValueError:
        return None
    return seconds if 0 <= seconds < float("inf") else None
