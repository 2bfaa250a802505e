"""Where a run can be told by hand that the machine goes: two small files in ``notices`` of the runtime folder.

``NAME.run`` is the run's own, locked as long as it lives, and says who it is and how it is getting on.  ``NAME.notice``
is put beside it by whoever gives notice, at once and wholly, and says when the window ends; when it is taken away the
notice is taken back.  Only we can enter the folder.  There is no daemon: whoever wants to know looks.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import attrs

from snaplib.event import Event
from snaplib.lockedfile import open_locked
from snaplib.runtime import runtime_dir

__all__ = ["CARD_BYTES", "Card", "Mailbox", "mailboxes", "notice_end_s"]

#: What a run tells of itself, in one write.
CARD_BYTES = 8192
_TEXT_CHARS = 300

_BEGINNINGS = ("started", "restored", "adopted")


@attrs.frozen
class Card:
    """What a run tells those who may give it notice.

    Attributes:
        name: Its session's name.
        key: Its key.
        pid: Its supervisor's.
        window_s: How long a window lasts where a notice does not say.
        task_pid: Its task's root; 0 before there is one.
        state: The state of its task's life.
        snapshot: What it was saved as; empty before.
        exit_code: What it ends with if it has failed.
        reason: Why it has.
    """

    name: str
    key: str
    pid: int
    window_s: float
    task_pid: int = 0
    state: str = "starting"
    snapshot: str = ""
    exit_code: int | None = None
    reason: str = ""


class Mailbox:
    """A run's own mailbox; use it in a ``with`` while the run lives.

    Nothing of it may cost a task: where the runtime folder is full the run goes without.

    Args:
        name: The session's name.
        key: The run's key.
        window_s: How long a window lasts where a notice does not say.
        clock: Tells the time in seconds, the same for all processes of the machine.
    """

    def __init__(
        self, name: str, key: str, window_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._card = Card(name, key[:_TEXT_CHARS], os.getpid(), window_s)
        self._clock = clock
        self._descriptor = -1

    @property
    def window_s(self) -> float:
        """How long a window lasts where a notice does not say."""
        return self._card.window_s

    @property
    def folder(self) -> Path:
        """Where it is."""
        return mailboxes()

    @property
    def notice_path(self) -> Path:
        """Where notice is put."""
        return self.folder / f"{self._card.name}.notice"

    @property
    def _path(self) -> Path:
        return self.folder / f"{self._card.name}.run"

    def __enter__(self) -> Self:
        with contextlib.suppress(OSError):
            self._open()
            self._put()
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self.notice_path.unlink(missing_ok=True)
            if self._descriptor >= 0:
                self._path.unlink(missing_ok=True)
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _open(self) -> None:
        end_s = notice_end_s(self.notice_path)
        # What was told a supervisor that was killed counts for the one that takes over, while there is time.
        if end_s is not None and not self._clock() < end_s < math.inf:
            self.notice_path.unlink(missing_ok=True)
        self._descriptor = open_locked(self._path)

    def tell(self, event: Event) -> None:
        """Hear an event, and pass on what of it is for those who gave notice."""
        details = event.details
        changes: dict[str, Any] = {"state": event.state}
        if event.name in _BEGINNINGS:
            changes["task_pid"] = int(details["pid"])
        if event.name == "saved":
            changes["snapshot"] = str(details["snapshot"])
        if event.name in ("failed", "dump_failed", "restore_failed"):
            changes["reason"] = str(details.get("reason", ""))[:_TEXT_CHARS]
            changes["exit_code"] = details.get("exit_code")
        if event.name == "killed":
            changes["reason"] = "the task was killed"
        before, self._card = self._card, attrs.evolve(self._card, **changes)
        if self._card != before and self._descriptor >= 0:
            with contextlib.suppress(OSError):
                self._put()

    def _put(self) -> None:
        data = json.dumps(attrs.asdict(self._card)).encode()
        # In one write, which somebody may see a part of: he looks again.
        os.pwrite(self._descriptor, data.ljust(CARD_BYTES), 0)


def mailboxes() -> Path:
    """Return the folder of all runs' mailboxes, made if need be.

    Raises:
        UsageError: The runtime folder is not ours alone.
    """
    folder = runtime_dir() / "notices"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def notice_end_s(path: Path) -> float | None:
    """Return when a window ends that a notice tells of, by ``time.monotonic``; None where there is no notice.

    Args:
        path: The notice's file.

    Returns:
        The end; infinite where the file is none that we have written.
    """
    try:
        told = json.loads(path.read_text())
        return float(told["end_s"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError):
        return math.inf
