"""Every error snaplib raises on purpose.

One class per mistake or failure a user can meet.  Each says what happened, to what, and what to do about it
(``hint``), carries the exit status the command ends with, and subclasses the builtin that a caller would already
catch.  Only the command line prints them and exits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

__all__ = [
    "EXIT_CANNOT_DUMP",
    "EXIT_DUMP_FAILED",
    "EXIT_RESTORE_FAILED",
    "EXIT_SAVED",
    "EXIT_TOO_MANY_ATTEMPTS",
    "EXIT_USAGE",
    "CannotDump",
    "CommandNotExecutable",
    "CommandNotFound",
    "CriuFailure",
    "CriuMissing",
    "CriuTooOld",
    "DeadlineExceeded",
    "DumpFailed",
    "EncryptionKeyError",
    "HostUnfit",
    "KeyBusy",
    "NoSuchSnapshot",
    "NoSuchTask",
    "NotAStore",
    "NoticeSourceFailed",
    "RestoreFailed",
    "RootRequired",
    "ShimUnusable",
    "SnaplibError",
    "SnapshotDamaged",
    "StillRunning",
    "StoreDenied",
    "StoreError",
    "StoreFull",
    "StoreReadOnly",
    "StoreTooNew",
    "StoreUnreachable",
    "TaskEnded",
    "TooManyAttempts",
    "TraceFailed",
    "UsageError",
    "WrongType",
]

EXIT_USAGE = 2
#: EX_TEMPFAIL of sysexits.h: saved, run the same command again.
EXIT_SAVED = 75
EXIT_DUMP_FAILED = 175
EXIT_RESTORE_FAILED = 176
EXIT_CANNOT_DUMP = 177
EXIT_TOO_MANY_ATTEMPTS = 178


class SnaplibError(Exception):
    """Base of all errors of snaplib.

    Args:
        message: What happened, and to what; one line.
        hint: What to do about it; one line, may be empty.
    """

    exit_code: ClassVar[int] = 1
    default_hint: ClassVar[str] = ""

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = self.default_hint if hint is None else hint

    def __str__(self) -> str:
        """One line: the message, and the remedy behind a dash."""
        return f"{self.message} - {self.hint}" if self.hint else self.message


class UsageError(SnaplibError, ValueError):
    """An argument that cannot be meant as it stands."""

    exit_code = EXIT_USAGE


class WrongType(UsageError, TypeError):
    """An argument of another type than it must be."""


class NoSuchTask(SnaplibError, ProcessLookupError):
    """No process has this pid."""

    exit_code = EXIT_USAGE
    default_hint = "check the pid with `ps -e`"


class TaskEnded(SnaplibError, ProcessLookupError):
    """The task ended while it was being worked on."""

    exit_code = EXIT_CANNOT_DUMP


class StillRunning(SnaplibError, TimeoutError):
    """The task has not ended in the time in which it was waited for; it runs on."""


class CommandNotFound(SnaplibError, FileNotFoundError):
    """The command to launch does not exist (127, as shells say it)."""

    exit_code = 127


class CommandNotExecutable(SnaplibError, PermissionError):
    """The command to launch exists but cannot be executed (126, as shells say it)."""

    exit_code = 126


class KeyBusy(SnaplibError, BlockingIOError):
    """Another `snaplib run` looks after this key already."""

    exit_code = EXIT_USAGE


class TooManyAttempts(SnaplibError, RuntimeError):
    """A task was started or resumed as often as it may be, and has not ended."""

    exit_code = EXIT_TOO_MANY_ATTEMPTS


class CannotDump(SnaplibError, RuntimeError):
    """The task is of a kind, or holds something, that cannot be dumped."""

    exit_code = EXIT_CANNOT_DUMP


class HostUnfit(CannotDump):
    """This host lacks something without which no task can be dumped."""

    default_hint = "run `snaplib doctor` to see what is missing"


class RootRequired(HostUnfit, PermissionError):
    """The operation needs privileges that this process does not have."""

    default_hint = "run it as root"


class CriuMissing(HostUnfit, FileNotFoundError):
    """No CRIU binary was found."""

    default_hint = "run tools/setup, or install CRIU 4.2 or newer and name it in $SNAPLIB_CRIU"


class CriuTooOld(HostUnfit):
    """The CRIU binary that was found is older than snaplib needs."""

    default_hint = "run tools/setup, or install CRIU 4.2 or newer and name it in $SNAPLIB_CRIU"


class ShimUnusable(HostUnfit):
    """The library that stands in for soft-dirty bits cannot be used: dumps cannot be incremental here."""

    default_hint = "dumps are full without it; `snaplib doctor` tells more"


class CriuFailure(SnaplibError, RuntimeError):
    """CRIU was asked to do something and failed.

    Args:
        message: What happened, and to what.
        reasons: What CRIU's log says about it, the likeliest first.
        log: The tail of CRIU's log.
        hint: What to do about it.
    """

    def __init__(
        self, message: str, *, reasons: Sequence[str] = (), log: str = "", hint: str | None = None
    ) -> None:
        super().__init__(message, hint=hint)
        self.reasons = tuple(reasons)
        self.log = log


class DumpFailed(CriuFailure):
    """A dump was tried and failed; the task runs on."""

    exit_code = EXIT_DUMP_FAILED


class RestoreFailed(CriuFailure):
    """A restore was tried and failed; the snapshot is as it was."""

    exit_code = EXIT_RESTORE_FAILED


class DeadlineExceeded(DumpFailed, TimeoutError):
    """A step that stops the task took longer than its deadline; the task was resumed."""


class NoticeSourceFailed(SnaplibError, OSError):
    """A source of notices does not answer, or with something that cannot be understood; it is asked again."""


class TraceFailed(SnaplibError, OSError):
    """A trace cannot be read or written."""


class StoreError(SnaplibError, OSError):
    """A store that cannot be used as asked."""

    exit_code = EXIT_USAGE


class NotAStore(StoreError):
    """The folder or address given is not a snaplib store."""

    default_hint = "name an empty or new folder, or one that snaplib made"


class StoreTooNew(StoreError):
    """The store, or a snapshot in it, was written by a newer snaplib."""

    default_hint = "upgrade snaplib"


class StoreReadOnly(StoreError):
    """The store cannot be written to."""

    default_hint = "make it writable or name another one with --store"


class StoreFull(StoreError):
    """There is no room left in the store; nothing of the snapshot was kept."""

    exit_code = EXIT_DUMP_FAILED
    default_hint = "free space, prune old snapshots or name another store with --store"


class EncryptionKeyError(StoreError, ValueError):
    """The key of an encrypted store is missing, or it is another's."""

    default_hint = "name its source with --encryption-key or in $SNAPLIB_ENCRYPTION_KEY"


class StoreDenied(StoreError, PermissionError):
    """The store knows these credentials not, or does not let them do this."""

    default_hint = "set the credentials that the cloud's own tools use, and see what they may do"


class StoreUnreachable(StoreError, ConnectionError):
    """The store does not answer, or not in time."""

    default_hint = "look at the address and the network"


class NoSuchSnapshot(StoreError, LookupError):
    """The store has no snapshot of this id or key."""

    default_hint = "list what there is with `snaplib snapshots`"


class SnapshotDamaged(StoreError):
    """A snapshot's bytes are not those that were written."""

    exit_code = EXIT_RESTORE_FAILED
    default_hint = "see which with `snaplib verify`, and restore an older snapshot"
