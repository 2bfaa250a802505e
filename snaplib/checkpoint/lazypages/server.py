"""The serving process: hears what it is to do, serves, and tells how it goes."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from snaplib.checkpoint.lazypages.guard import Guarded, end_task
from snaplib.checkpoint.lazypages.pieces import Pieces, hot_frames
from snaplib.checkpoint.lazypages.reception import RestoreGone
from snaplib.checkpoint.lazypages.service import Service
from snaplib.errors import SnaplibError
from snaplib.store import Store
from snaplib.store.index import RUN

__all__ = ["serve"]

_REPORT_S = 0.2


def serve(listener: socket.socket, guarded: Guarded) -> int:
    """Do what standard input says.

    Args:
        listener: Where CRIU's restore will connect to.
        guarded: Who ends the task if we die.

    Returns:
        An exit status.
    """
    server = _Server(guarded)
    # One for each process of the task, and for each that it forks meanwhile.
    _soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    try:
        served_bytes = server.run(listener)
    except (RestoreGone, EOFError):
        server.give_up()
        _say({"gone": True})
        return 1
    except Exception as error:  # noqa: BLE001 - whatever it is, the task must not run without its memory
        server.give_up()
        told = getattr(error, "message", str(error) or repr(error))
        known = isinstance(error, SnaplibError | OSError | ValueError)
        _say(
            {
                "failed": f"the task's memory could not be completed: {told if known else repr(error)}"
            }
        )
        return 1
    _say({"done": True, "served_bytes": served_bytes})
    return 0


class _Server:
    def __init__(self, guarded: Guarded) -> None:
        self._guarded = guarded
        self._lock = threading.Lock()
        self._served_bytes = 0
        self._reported_at = 0.0
        self._init: int | None = None
        self._note: Path | None = None
        self._folder: Path | None = None

    def run(self, listener: socket.socket) -> int:
        """Serve; returns how many bytes that was."""
        order = _hear()
        key = order["key"]
        store = Store.open(
            order["store"], create=False, encryption_key=bytes.fromhex(key) if key else None
        )
        with store.read(order["snapshot"]) as reader:
            pages = reader.pages
            first = hot_frames(pages.index)
            order = _hear()
            self._folder = Path(order["folder"])
            self._guarded.folder(self._folder)
            left = np.fromfile(self._folder / order["left"], RUN)
            service = Service(
                pages,
                Pieces.by_process(pages.index, left),
                first,
                keep=self._guarded.keep,
                drop=self._guarded.drop,
                served=self._served,
            )
            threading.Thread(target=self._listen, args=(service,), daemon=True).start()
            try:
                _say({"ready": True})
                service.serve(listener)
            except BaseException:
                # Before anything of it reads as zeros.
                self._end_task()
                raise
            finally:
                service.close()
        self._guarded.done()
        if self._note is not None:
            # Where the guard has died before.
            self._note.unlink(missing_ok=True)
        shutil.rmtree(self._folder, ignore_errors=True)
        return self._served_bytes

    def give_up(self) -> None:
        """Leave nothing behind."""
        self._end_task()
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _listen(self, service: Service) -> None:
        """Hear which task it is and that it runs; if nobody says so, it does not."""
        with contextlib.suppress(EOFError):
            while True:
                fields = _hear()
                if "init_pid" in fields:
                    self._init = os.pidfd_open(fields["init_pid"])
                    self._note = Path(fields["note"])
                    self._guarded.task(self._init, self._note)
                if fields.get("runs"):
                    return
        service.stop()

    def _end_task(self) -> None:
        if self._init is not None:
            end_task(self._init)

    def _served(self, size_bytes: int) -> None:
        with self._lock:
            self._served_bytes += size_bytes
            now = time.monotonic()
            if now - self._reported_at < _REPORT_S:
                return
            self._reported_at = now
            served_bytes = self._served_bytes
        _say({"served_bytes": served_bytes})


def _hear() -> dict[str, Any]:
    line = sys.stdin.readline()
    if not line:
        raise EOFError("nobody says what to do")
    fields: dict[str, Any] = json.loads(line)
    return fields


def _say(fields: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):
        os.write(1, json.dumps(fields).encode() + b"\n")
