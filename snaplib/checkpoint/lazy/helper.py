"""The restoring side of a lazy restore: starts the process that serves pages, and hears how it goes."""

from __future__ import annotations

import contextlib
import json
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from snaplib.checkpoint.lazypages.reception import listen_in
from snaplib.errors import RestoreFailed, UsageError
from snaplib.store import Snapshot, Store

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = ["LazyHelper"]

_END_S = 10.0
_LEFT = "snaplib-left"


class LazyHelper:
    """The process that serves a task's pages; it starts at once and waits for its order.

    Args:
        store: Where the snapshot is.
        report: Called with the bytes served so far.

    Raises:
        UsageError: No other process can open this store.
    """

    def __init__(self, store: Store, report: Callable[[int], None]) -> None:
        if store.address.startswith("memory:"):
            raise UsageError(
                f"{store.url} is this process's memory, from which nothing can be restored lazily"
            )
        self._store = store
        self._report = report
        self._snapshot_id = ""
        self._failure: str | None = None
        self._thread = threading.Thread(target=self._listen, name="snaplib-lazy", daemon=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        descriptor = self._listener.fileno()
        self._process = subprocess.Popen(
            [sys.executable, "-m", "snaplib.checkpoint.lazypages", str(descriptor)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=[descriptor],
            start_new_session=True,
            cwd="/",
        )

    def begin(self, snapshot: Snapshot) -> None:
        """Say what is restored, as soon as it is known: what the helper reads takes as long as what we do.

        Args:
            snapshot: The snapshot.
        """
        self._snapshot_id = snapshot.id
        self._tell(
            {
                "store": self._store.address,
                # Through the pipe: not even root sees it in a list of processes.
                "key": self._store.encryption_key.hex() if self._store.encryption_key else None,
                "snapshot": snapshot.id,
            }
        )

    def listen(self, folder: Path, left: npt.NDArray[np.void]) -> None:
        """Have CRIU find the helper.

        Args:
            folder: The folder of images; the helper's from now on, removed when it ends.
            left: RUN, shape (n,): the pages that are in no image, and come from the helper.
        """
        listen_in(self._listener, folder)
        # Ours would answer for a helper that is dead.
        self._listener.close()
        left.tofile(folder / _LEFT)
        self._tell({"folder": str(folder), "left": _LEFT})

    def wait_until_ready(self, timeout_s: float) -> None:
        """Wait until the helper is able to serve; before the task runs.

        Args:
            timeout_s: How long to wait.

        Raises:
            RestoreFailed: It is not by then, or never will be.
        """
        assert self._process.stdout is not None
        in_time = select.select([self._process.stdout], [], [], timeout_s)[0]
        answer = self._hear() if in_time else {"failed": f"no answer after {timeout_s:.3g} s"}
        if not answer.get("ready"):
            raise RestoreFailed(
                f"snapshot {self._snapshot_id} cannot be restored lazily: {answer.get('failed', 'no answer')}",
                hint="restore it without --lazy",
            )

    @property
    def pid(self) -> int:
        """The process."""
        return self._process.pid

    def serves(self, init_pid: int, note: Path) -> None:
        """Tell whom to end if the memory cannot be completed.

        Args:
            init_pid: The init of the task's PID namespace.
            note: The file to remove once it is.
        """
        self._tell({"init_pid": init_pid, "note": str(note)})

    def task_runs(self) -> None:
        """Tell that the task runs: from now on it needs the helper, and not us."""
        self._tell({"runs": True})
        self._thread.start()

    def give_up(self) -> str:
        """End the helper: the task does not run.

        Returns:
            What went wrong with it, if anything did; empty else.
        """
        self._listener.close()
        try:
            # It hears the end of its input, and ends.
            said, _errors = self._process.communicate(timeout=_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            said = b""
        self._close()
        lines = [json.loads(line) for line in said.splitlines()]
        return next((fields["failed"] for fields in lines if "failed" in fields), "")

    def wait(self, timeout_s: float | None = None) -> bool:
        """Wait until the memory is complete; false if it is not by then.

        Raises:
            RestoreFailed: It never will be; the task was ended.
        """
        self._thread.join(timeout_s)
        if self._failure is not None:
            raise RestoreFailed(self._failure, hint="the snapshot is as it was")
        return not self._thread.is_alive()

    def _close(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        with contextlib.suppress(OSError):
            self._process.stdin.close()
        self._process.stdout.close()

    def _tell(self, fields: dict[str, Any]) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self._process.stdin.write(json.dumps(fields).encode() + b"\n")
            self._process.stdin.flush()

    def _hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        found: dict[str, Any] = json.loads(line) if line else {}
        return found

    def _listen(self) -> None:
        ended = False
        while fields := self._hear():
            if "served_bytes" in fields:
                self._report(fields["served_bytes"])
            self._failure = fields.get("failed", self._failure)
            ended = ended or "done" in fields or "failed" in fields
        self._process.wait()
        self._close()
        if not ended:
            self._failure = "the process that serves the task's memory has died"
