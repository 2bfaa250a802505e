"""The caller's terminal while a task has one of its own: raw, and as it was afterwards."""

from __future__ import annotations

import contextlib
import os
import termios
from typing import TYPE_CHECKING, Any, Self

from snaplib.errors import SnaplibError
from snaplib.session.nsinit.terminal import raw_attributes

if TYPE_CHECKING:
    from types import TracebackType

    from snaplib.session.control import Control

__all__ = ["RawTerminal"]


class RawTerminal:
    """A block in which every key goes to the task's terminal as it was typed.

    A background job leaves the terminal alone, until `refresh` finds it in the foreground.

    Args:
        control: The session.
        terminal: Our terminal, which is not closed; -1: there is nothing to do.
    """

    def __init__(self, control: Control, terminal: int) -> None:
        self._control = control
        # Our own: the session may be closed before the block ends.
        self._terminal = os.dup(terminal) if terminal >= 0 else -1
        self._saved: list[Any] | None = None

    def __enter__(self) -> Self:
        self.refresh()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._terminal < 0:
            return
        # In the background it is somebody else's by now, and would stop us with SIGTTOU.
        if self._saved is not None and self._in_foreground():
            # It may have been hung up meanwhile.
            with contextlib.suppress(termios.error):
                termios.tcsetattr(self._terminal, termios.TCSADRAIN, self._saved)
        with contextlib.suppress(SnaplibError, OSError):
            self._control.ask("foreground", on=False)
        os.close(self._terminal)
        self._terminal = -1

    def refresh(self) -> None:
        """Look again whose the terminal is and how large; for SIGCONT and SIGWINCH."""
        if self._terminal < 0:
            return
        in_foreground = self._in_foreground()
        if in_foreground:
            # It may have been hung up, of which SIGCONT tells as well; the task goes on without it.
            with contextlib.suppress(termios.error):
                if self._saved is None:
                    self._saved = termios.tcgetattr(self._terminal)
                termios.tcsetattr(self._terminal, termios.TCSADRAIN, raw_attributes(self._saved))
        with contextlib.suppress(SnaplibError):
            self._control.ask("foreground", on=in_foreground)

    def _in_foreground(self) -> bool:
        try:
            return os.tcgetpgrp(self._terminal) == os.getpgrp()
        except OSError:
            # Not our controlling terminal: there is no job control, and nobody else reads it.
            return True
