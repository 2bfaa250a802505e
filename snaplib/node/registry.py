"""Which runs there are on this node: one file each, locked by its run as long as that lives.

The files are in ``node`` of the runtime folder, which only we can enter.  There is no daemon: whoever wants to know
looks.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
from pathlib import Path
from typing import Any

import attrs

from snaplib.lockedfile import open_locked
from snaplib.runtime import runtime_dir

__all__ = ["Entry", "Registry"]

_SPEED = "speed.json"


@attrs.frozen
class Entry:
    """What a run tells the others.

    Attributes:
        name: Its session's name.
        key: Its key, for people.
        state: ``running``, ``noticed`` or ``dumping``.
        pid: Its task's root.
        began_s: Since when it would lose its work, by ``time.monotonic``.
        priority: As it was given.
        end_s: When its window ends, on the same clock; 0 before there is notice.
        size_bytes: What its dump has to send; 0 where it is not known.
        seconds: How long that takes alone; 0 where it is not known.
        dump_end_s: When the dump that is under way is expected to be done.
    """

    name: str
    key: str
    state: str
    pid: int
    began_s: float
    priority: int = 0
    end_s: float = 0.0
    size_bytes: int = 0
    seconds: float = 0.0
    dump_end_s: float = 0.0


class Registry:
    """One run's place among the others of its node.

    Nothing of it may cost a task: where the runtime folder is full the run goes without.

    Args:
        name: The run's name.
    """

    def __init__(self, name: str) -> None:
        self.folder = runtime_dir() / "node"
        with contextlib.suppress(OSError):
            self.folder.mkdir(mode=0o700, exist_ok=True)
        self.name = name
        self._path = self.folder / f"{name}.run"
        self._descriptor = -1

    def put(self, entry: Entry) -> None:
        """Tell the others about this run, from now on or anew."""
        with contextlib.suppress(OSError):
            self._put(entry)

    def _put(self, entry: Entry) -> None:
        if self._descriptor < 0:
            self._descriptor = open_locked(self._path, fcntl.LOCK_SH)
        data = json.dumps(attrs.asdict(entry)).encode()
        # One write of less than a page: whoever reads has the old or the new, or a tail that he passes over.
        os.pwrite(self._descriptor, data.ljust(1024) + b"\n", 0)

    def entries(self) -> list[Entry]:
        """Return all runs that live, this one too; forget those that do not."""
        found = []
        for path in sorted(self.folder.glob("*.run")):
            with contextlib.suppress(OSError, ValueError, TypeError):
                if path.name != self._path.name and not _lives(path):
                    path.unlink(missing_ok=True)
                    continue
                fields: dict[str, Any] = json.loads(path.read_text())
                found.append(Entry(**fields))
        return found

    def leave(self) -> None:
        """Tell that this run is over."""
        if self._descriptor >= 0:
            with contextlib.suppress(OSError):
                self._path.unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = -1

    def take_turn(self) -> int:
        """Return a descriptor that holds the turn until it is closed; -1 if somebody has it."""
        try:
            descriptor = os.open(
                self.folder / "turn.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
            )
        except OSError:
            # No room for a lock: nobody has it, and no task may be lost for that.
            return os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return -1
        return descriptor

    @property
    def bytes_per_s(self) -> float | None:
        """How fast the last dump on this node was; None if there was none."""
        try:
            return float(json.loads((self.folder / _SPEED).read_text())["bytes_per_s"])
        except (OSError, ValueError, KeyError, TypeError):
            return None

    def measured(self, size_bytes: int, seconds: float) -> None:
        """Tell the others how fast a dump was.

        Args:
            size_bytes: What it sent.
            seconds: How long that took.
        """
        if seconds <= 0 or size_bytes <= 0:
            return
        path = self.folder / f".{_SPEED}.{os.getpid()}"
        with contextlib.suppress(OSError):
            for left in self.folder.glob(f".{_SPEED}.*"):
                left.unlink(
                    missing_ok=True
                )  # whoever wrote it was killed, or has just been overtaken
            path.write_text(json.dumps({"bytes_per_s": size_bytes / seconds}))
            path.rename(self.folder / _SPEED)


def _lives(path: Path) -> bool:
    descriptor = os.open(path, os.O_RDWR | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    finally:
        os.close(descriptor)
    return False
