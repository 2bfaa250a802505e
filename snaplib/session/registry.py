"""The folders of sessions: which there are, which live, which are only left over."""

from __future__ import annotations

import contextlib
import json
import os
import re
from pathlib import Path
from typing import Any

import attrs

from snaplib.errors import UsageError
from snaplib.runtime import runtime_dir
from snaplib.session.nsinit.folder import RECORD, STATUS
from snaplib.session.record import ExitStatus, StreamRecord, StreamsRecord

__all__ = [
    "KILLED",
    "SessionRecord",
    "folder_of",
    "names",
    "read_record",
    "read_status",
    "remove",
    "sessions_dir",
    "sweep",
]

#: How a session ended whose init was itself killed: nobody wrote about it.
KILLED = 9

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,100}")


@attrs.frozen
class SessionRecord:
    """What `session.json` says.

    Attributes:
        name: The session's name.
        key: What `snaplib run` looks the task's snapshots up by, if it was told.
        host_pid: Its init, as the starter saw it.
        host_start_ticks: When the init started, field 22 of proc_pid_stat(5); with the pid it names
            one process.
        root_pid: The task's root, in its own PID namespace; 0 before a restore is finished.
        command: What was run.
        cwd: Where.
        created_at: When the session was made, seconds since the epoch.
        streams: Its streams as they were laid out.
    """

    name: str
    key: str | None
    host_pid: int
    host_start_ticks: int
    root_pid: int
    command: tuple[str, ...]
    cwd: str
    created_at: float
    streams: StreamsRecord

    @classmethod
    def from_json(cls, content: dict[str, Any]) -> SessionRecord:
        """Read what the init wrote."""
        streams = tuple(StreamRecord.from_json(stream) for stream in content.pop("streams"))
        command = tuple(content.pop("command"))
        return cls(**content, command=command, streams=StreamsRecord(streams))

    @property
    def alive(self) -> bool:
        """Whether its init runs."""
        try:
            stat = Path(f"/proc/{self.host_pid}/stat").read_bytes()
        except OSError:
            return False
        fields = stat.rpartition(b")")[2].split()
        return int(fields[19]) == self.host_start_ticks and fields[0] not in (b"Z", b"X")


def sessions_dir() -> Path:
    """Return the folder of all sessions' folders, made if need be."""
    path = runtime_dir() / "sessions"
    path.mkdir(mode=0o700, exist_ok=True)
    return path


def folder_of(name: str) -> Path:
    """Return the folder of the session named `name`.

    Raises:
        UsageError: It cannot be a session's name.
    """
    if not _NAME.fullmatch(name):
        raise UsageError(
            f"{name!r} cannot be the name of a session",
            hint="use letters, digits, `.`, `_` and `-`, at most 101 of them",
        )
    return sessions_dir() / name


def names() -> list[str]:
    """Return the names of all sessions that have a folder, living or not."""
    return sorted(
        path.name
        for path in sessions_dir().iterdir()
        if _NAME.fullmatch(path.name) and path.is_dir()
    )


def read_record(folder: Path) -> SessionRecord | None:
    """Return a session's record; None when there is no session."""
    try:
        return SessionRecord.from_json(json.loads((folder / RECORD).read_text()))
    except FileNotFoundError:
        return None


def read_status(folder: Path) -> ExitStatus | None:
    """Return how a session ended; None when nothing was written about it."""
    try:
        content = json.loads((folder / STATUS).read_text())
    except FileNotFoundError:
        return None
    if content["state"] == "saved":
        return ExitStatus(saved=content["snapshot"])
    return ExitStatus(exit_code=content["exit_code"], signal=content["signal"])


def remove(folder: Path) -> None:
    """Remove the folder of a session that has ended; at once for everybody who looks."""
    doomed = folder.with_name(f".{folder.name}.ended.{os.getpid()}")
    with contextlib.suppress(FileNotFoundError):
        folder.rename(doomed)
        _remove_tree(doomed)


def sweep() -> None:
    """Remove what starts and removals that were killed half-way left over: folders nobody can find."""
    for path in sessions_dir().glob(".*"):
        pid, _, ticks = path.name.rpartition(".")[2].partition("-")
        try:
            stat = Path(f"/proc/{int(pid)}/stat").read_bytes()
        except (OSError, ValueError):
            _remove_tree(path, ignore_errors=True)
            continue
        if ticks and stat.rpartition(b")")[2].split()[19].decode() != ticks:
            _remove_tree(path, ignore_errors=True)


def _remove_tree(path: Path, *, ignore_errors: bool = False) -> None:
    import shutil  # noqa: PLC0415  half a MB that those who only look for a session do without

    shutil.rmtree(path, ignore_errors=ignore_errors)
