"""What one run is to be: the command, where its snapshots are, and how it is saved and resumed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import attrs
import blake3

from snaplib.arguments import number, one_of, patterns, snapshot_store, text, whole
from snaplib.errors import UsageError
from snaplib.store import Store

__all__ = ["ON_RESTORE_FAILURE", "Settings"]

ON_RESTORE_FAILURE = ("fail", "restart")


@attrs.frozen(kw_only=True)
class Settings:
    """The arguments of a `Supervisor`, which says what they mean, each with a value.

    Raises:
        UsageError: The command is empty, or an option is not what it can be.
    """

    command: tuple[str, ...]
    store: Store
    key: str
    snapshot_id: str | None
    window_s: float
    tcp: str
    exit_saved: int
    on_restore_failure: str
    max_attempts: int | None
    once: bool
    lazy: bool
    files: str | None
    capture: tuple[str, ...]
    changed_files: str
    priority: int
    snapshot_every_s: float | None
    keep_snapshots: bool
    adopt_orphans: bool
    streams: Mapping[str, Any]

    def __attrs_post_init__(self) -> None:
        """Refuse what cannot be."""
        if not self.command:
            raise UsageError("there is no command to run", hint="put it behind --")
        snapshot_store(self.store)
        text("key", self.key)
        if self.snapshot_id is not None:
            text("snapshot_id", self.snapshot_id)
        self._check_modes()
        patterns("capture", self.capture)
        whole("exit_saved", self.exit_saved, least=0, most=255)
        whole("priority", self.priority)
        if number("window_s", self.window_s, finite=True) <= 0:
            raise UsageError(f"a window of {self.window_s:g} s leaves no time for a dump")
        if self.on_restore_failure not in ON_RESTORE_FAILURE:
            raise UsageError(
                f"{self.on_restore_failure!r} is not one of {', '.join(ON_RESTORE_FAILURE)}"
            )
        every_s = self.snapshot_every_s
        if every_s is not None and number("snapshot_every_s", every_s, finite=True) <= 0:
            raise UsageError(f"a snapshot every {every_s:g} s leaves no time for the task")
        attempts = self.max_attempts
        if attempts is not None and whole("max_attempts", attempts) < 1:
            raise UsageError(f"{attempts} attempts are none")

    def _check_modes(self) -> None:
        if (self.tcp, self.files, self.changed_files) == ("auto", None, "refuse"):
            return
        # Late: whoever leaves them as they are need not wait for it.
        from snaplib.checkpoint import CHANGED_FILES, FILE_MODES, TCP_MODES  # noqa: PLC0415

        one_of("tcp", self.tcp, TCP_MODES)
        one_of("files", self.files, (None, *FILE_MODES))
        one_of("changed_files", self.changed_files, CHANGED_FILES)

    @property
    def session_name(self) -> str:
        """The name of the session of this key and store."""
        named = f"{self.store.url}\0{self.key}".encode("utf-8", "surrogateescape")
        return f"run-{blake3.blake3(named).hexdigest(12)}"
