"""Where the events of a task's life are told."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path
from typing import Self, TextIO

from snaplib.cli.eventline import event_line
from snaplib.cli.output import message
from snaplib.errors import UsageError
from snaplib.event import Event

__all__ = ["EventLog"]


class EventLog:
    """Tells events: a line for people on stderr, a JSON line in a file.

    Args:
        path: The file to append to, if any.
        quiet: Whether people are told nothing.
    """

    def __init__(self, path: str | None, *, quiet: bool) -> None:
        self._quiet = quiet
        self._path = path
        #: Whether events could not be written, and whether the last one was so in part.
        self._failed = self._cut = False
        self._obstacles: set[tuple[str, str]] = set()
        self._file: TextIO | None = None
        if path:
            try:
                self._file = Path(path).open("a", encoding="utf-8")  # noqa: SIM115 - __exit__ closes it
            except OSError as error:
                raise UsageError(
                    f"the events file {path} cannot be written: {error.strerror}",
                    hint="name another one with --events",
                ) from error

    def __enter__(self) -> Self:
        """Begin."""
        return self

    def __exit__(self, *_exception: object) -> None:
        """Close the file."""
        if self._file:
            with contextlib.suppress(OSError):
                self._file.close()

    def __call__(self, event: Event) -> None:
        """Tell one event."""
        if self._file:
            self._record(self._file, event)
        if not self._quiet and not self._is_known(event):
            line = event_line(event)
            if line:
                self._say(line)

    def _is_known(self, event: Event) -> bool:
        """Whether people were told the same of another process."""
        if event.name != "obstacle":
            return False
        what = (event.details["code"], event.details["message"])
        known = what in self._obstacles
        self._obstacles.add(what)
        return known

    def _record(self, file: TextIO, event: Event) -> None:
        line = ("\n" if self._cut else "") + json.dumps(event.to_json()) + "\n"
        try:
            self._cut = os.write(file.fileno(), line.encode()) < len(line)
        except OSError as error:
            # The task must not pay for it; the next event may find room again.
            if not self._failed:
                self._failed = True
                self._say(
                    f"events cannot be written to {self._path}: {error.strerror}; the task goes on"
                )

    def _say(self, line: str) -> None:
        try:
            message(line)
        except OSError:
            # Whoever read our stderr went away; the task goes on.
            sys.stderr = None
            self._quiet = True
