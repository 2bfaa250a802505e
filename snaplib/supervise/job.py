"""One piece of work beside the main loop, which stays free to hear of notices."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

__all__ = ["Job"]


class Job:
    """Work in a thread of its own.

    Args:
        name: What it is, for the thread's name.
        work: Does it.
        done: Called with this job once it is finished, in its thread.
    """

    def __init__(self, name: str, work: Callable[[], Any], done: Callable[[Job], None]) -> None:
        self.name = name
        self._work = work
        self._done = done
        self._result: Any = None
        self._error: BaseException | None = None
        # Who ends waits for it, but not for ever.
        self._thread = threading.Thread(target=self._run, name=f"snaplib-{name}", daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._result = self._work()
        except BaseException as error:  # noqa: BLE001 - raised by `result`, in the thread that waits for it
            self._error = error
        self._done(self)

    def join(self, timeout_s: float | None = None) -> bool:
        """Wait for the end.

        Args:
            timeout_s: How long to wait; as long as it takes by default.

        Returns:
            Whether it has ended.
        """
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def result(self) -> Any:
        """Wait for the end, and return what the work returned.

        Raises:
            BaseException: What the work raised.
        """
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._result
