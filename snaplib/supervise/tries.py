"""The dumps of one window that failed, and when the next one is to be tried."""

from __future__ import annotations

import math
import time

from snaplib.errors import EXIT_CANNOT_DUMP, EXIT_DUMP_FAILED, DumpFailed, SnaplibError

__all__ = ["Tries"]

#: How long to wait before a failed dump is tried again, within the window.
_RETRY_AFTER_S = (1.0, 3.0, 10.0)
#: A dump that has less time than this is not tried again.
_LEAST_DUMP_S = 1.0


class Tries:
    """What has been tried in one window; at first nothing, and the first dump may begin at once."""

    def __init__(self) -> None:
        self.failures: tuple[SnaplibError, ...] = ()
        #: When to begin the next try, by the monotonic clock; infinite once there is no time for one.
        self.next_try_s = 0.0

    @property
    def due(self) -> bool:
        """Whether it is time for a try."""
        return self.next_try_s <= time.monotonic()

    def put_off(self, pause_s: float) -> None:
        """Look again after some seconds whether a try may begin."""
        self.next_try_s = time.monotonic() + pause_s

    def failed(self, error: Exception, left_s: float) -> SnaplibError:
        """Hear why a dump failed.

        Args:
            error: Why; anything but a `SnaplibError` is a mistake of ours, and made one.
            left_s: What is left of the window.

        Returns:
            The error as it is told.
        """
        if not isinstance(error, SnaplibError):
            error = DumpFailed(f"the dump broke off: {type(error).__name__}: {error}")
        elif error.exit_code not in (EXIT_CANNOT_DUMP, EXIT_DUMP_FAILED):
            # The store's, for example: to whoever runs us it is a dump that failed.
            error = DumpFailed(f"{error.message}; the task runs on", hint=error.hint)
        self.failures = (*self.failures, error)
        tries = len(self.failures)
        pause_s = _RETRY_AFTER_S[tries - 1] if tries <= len(_RETRY_AFTER_S) else left_s
        again = left_s - pause_s >= _LEAST_DUMP_S
        self.next_try_s = time.monotonic() + pause_s if again else math.inf
        return error
