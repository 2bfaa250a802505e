"""The runs of this machine, as those see them who give them notice."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import time
from collections.abc import Callable
from pathlib import Path

from snaplib.lockedfile import is_at
from snaplib.reclaim.mailbox import CARD_BYTES, Card, mailboxes, notice_end_s

__all__ = ["Run", "runs_here"]

#: A card is read while it may just be written: so often it is read again.
_READS = 20


class Run:
    """A run of this machine; close it, or use it in a ``with``.

    What it told last can be read even when it is gone.

    Args:
        path: The file of its card.
        clock: Tells the time in seconds, the same for all processes of the machine.

    Raises:
        OSError: It is gone already.
        ValueError: The file is no card.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._notice = path.with_suffix(".notice")
        self._clock = clock
        self._descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
        try:
            self.card = self._read()
        except ValueError:
            self.close()
            raise

    def close(self) -> None:
        """Let go of it; may be called again."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _read(self) -> Card:
        for _ in range(_READS):
            data = os.pread(self._descriptor, CARD_BYTES, 0)
            with contextlib.suppress(ValueError, TypeError):
                return Card(**json.loads(data))
            time.sleep(0.001)
        raise ValueError(f"{self._path} is no card of a run")

    def refresh(self) -> bool:
        """Read what it tells now.

        Returns:
            Whether it lives.
        """
        # First whether it lives: then what is read of one that does not is the last that it has told.
        lives = self._lives()
        with contextlib.suppress(ValueError):
            self.card = self._read()
        return lives

    def _lives(self) -> bool:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        fcntl.flock(self._descriptor, fcntl.LOCK_UN)
        return False

    @property
    def window_end_s(self) -> float | None:
        """When the window ends that it was given notice of by hand; None without."""
        return notice_end_s(self._notice)

    def announce(self, window_s: float | None = None) -> float:
        """Give it notice.

        Args:
            window_s: Seconds from now to the end of the machine; the run's own by default.

        Returns:
            How long the window lasts: less than that if another notice had said so before.

        Raises:
            OSError: The notice cannot be written.
        """
        now_s = self._clock()
        end_s = now_s + (self.card.window_s if window_s is None else window_s)
        before_s = self.window_end_s
        if before_s is not None and now_s < before_s < end_s:
            return before_s - now_s
        new = self._notice.with_name(f".{self._notice.name}.{os.getpid()}")
        new.write_text(json.dumps({"end_s": end_s}))
        new.rename(self._notice)
        return end_s - now_s

    def cancel(self) -> bool:
        """Take the notice back; return whether there was one."""
        try:
            self._notice.unlink()
        except FileNotFoundError:
            return False
        return True

    def forget(self) -> None:
        """Remove what a run has left that was killed."""
        with contextlib.suppress(BlockingIOError):
            # Locked, so that nobody who is about to take it for his own can keep one that is removed.
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if is_at(self._descriptor, self._path):
                self._path.unlink(missing_ok=True)
            fcntl.flock(self._descriptor, fcntl.LOCK_UN)


def runs_here(clock: Callable[[], float] = time.monotonic) -> list[Run]:
    """Return the runs of this machine that live; those that do not are forgotten.

    Args:
        clock: Tells the time in seconds, the same for all processes of the machine.

    Raises:
        UsageError: The runtime folder is not ours alone.
    """
    found = []
    for path in sorted(mailboxes().glob("*.run")):
        try:
            run = Run(path, clock)
        except (OSError, ValueError):
            continue
        if run.refresh():
            found.append(run)
        else:
            run.forget()
            run.close()
    return found
