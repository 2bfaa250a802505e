"""The process behind a lazy restore: ``python -m snaplib.checkpoint.lazy``, told what to do on standard input.

Lines of JSON come in: where the snapshot is and where CRIU looks for its daemon; the init of the task's PID namespace;
and that the task runs.  Standard input ending before that means that it does not.  Lines of JSON go to standard output:
``ready``, the bytes served so far, and how it ended.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from snaplib.checkpoint.lazy.hold import Hold
from snaplib.checkpoint.lazy.serving import serve
from snaplib.errors import SnaplibError
from snaplib.store import Store
from snaplib.store.framecache import FrameCache

_REPORT_S = 0.2
_START_S = 30.0
_SOCKET = "lazy-pages.socket"


def main() -> int:
    """Serve one restored task until its memory is complete."""
    # Whoever started us may be gone when we report, and need not be there when a terminal hangs up.
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    with contextlib.suppress(OSError):
        # Without us the task cannot go on.
        Path("/proc/self/oom_score_adj").write_text("-1000")
    order = json.loads(sys.stdin.readline())
    folder = Path(order["folder"])
    try:
        return _Server(order, folder).run()
    except (SnaplibError, OSError, ValueError) as error:
        _say({"failed": str(getattr(error, "message", error))})
        return 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class _Server:
    def __init__(self, order: dict[str, Any], folder: Path) -> None:
        self._order = order
        self._folder = folder
        self._served_bytes = 0
        self._reported_at = 0.0
        self._init: int | None = None
        self._note: Path | None = None

    def run(self) -> int:
        key = self._order["key"]
        store = Store.open(
            self._order["store"], create=False, encryption_key=bytes.fromhex(key) if key else None
        )
        with store.read(self._order["snapshot"]) as reader:
            pages = reader.pages
            first = self._order["first_frames"]
            cache = FrameCache(pages.load_frame, kept=first)
            try:
                cache.want(first)
                return self._with_daemon(pages.index, cache)
            finally:
                cache.close()

    def _with_daemon(self, index: Any, cache: FrameCache) -> int:
        ours, theirs = socket.socketpair()
        work = self._folder / "daemon"
        work.mkdir(mode=0o700)
        ready, ready_w = os.pipe()
        with theirs, ours:
            daemon = subprocess.Popen(
                [
                    self._order["criu"],
                    "lazy-pages",
                    *("--images-dir", str(self._folder), "--work-dir", str(work)),
                    *("--page-server", "--ps-socket", str(theirs.fileno())),
                    *("--status-fd", str(ready_w), "-o", "lazy.log", "-v1"),
                ],
                pass_fds=[theirs.fileno(), ready_w],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            os.close(ready_w)
            theirs.close()
            try:
                with os.fdopen(ready, "rb") as answer:
                    answer.read(1)
                hold = self._ready(daemon, work)
                _say({"ready": True})
                threading.Thread(target=self._listen, args=(daemon,), daemon=True).start()
                failure: str | None = None
                try:
                    serve(ours, index, cache, self._served)
                except (SnaplibError, OSError, ValueError) as error:
                    failure = str(getattr(error, "message", error))
                return self._end(daemon, hold, work, failure)
            finally:
                daemon.kill()
                daemon.wait()

    def _ready(self, daemon: subprocess.Popen[bytes], work: Path) -> Hold:
        deadline = time.monotonic() + _START_S
        while not (work / _SOCKET).exists():
            if daemon.poll() is not None or time.monotonic() > deadline:
                raise OSError(f"CRIU's daemon does not start: {_last_line(work / 'lazy.log')}")
            time.sleep(0.001)
        return Hold(self._folder, work, _SOCKET)

    def _end(
        self, daemon: subprocess.Popen[bytes], hold: Hold, work: Path, failure: str | None
    ) -> int:
        if failure is not None:
            daemon.kill()
        status = daemon.wait()
        if status == 0 and failure is None:
            hold.release()
            if self._note is not None:
                self._note.unlink(missing_ok=True)
            _say({"done": True, "served_bytes": self._served_bytes})
            return 0
        reason = failure or _last_line(work / "lazy.log") or f"its status is {status}"
        # What is missing would read as zeros: better no task than a wrong one.
        self._end_task()
        hold.release()
        _say({"failed": f"the task's memory could not be completed: {reason}"})
        return 1

    def _listen(self, daemon: subprocess.Popen[bytes]) -> None:
        """Hear which task it is and that it runs; if nobody says so, it does not."""
        while line := sys.stdin.readline():
            fields = json.loads(line)
            if "init_pid" in fields:
                self._init = os.pidfd_open(fields["init_pid"])
                self._note = Path(fields["note"])
            if fields.get("runs"):
                return
        self._end_task()
        daemon.kill()

    def _end_task(self) -> None:
        if self._init is not None:
            # The whole PID namespace ends with its init.
            with contextlib.suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._init, signal.SIGKILL)

    def _served(self, size_bytes: int) -> None:
        self._served_bytes += size_bytes
        now = time.monotonic()
        if now - self._reported_at >= _REPORT_S:
            self._reported_at = now
            _say({"served_bytes": self._served_bytes})


def _say(fields: dict[str, Any]) -> None:
    with contextlib.suppress(OSError):
        os.write(1, json.dumps(fields).encode() + b"\n")


def _last_line(path: Path) -> str:
    try:
        lines = path.read_text(errors="replace").splitlines()
    except FileNotFoundError:
        return ""
    return lines[-1] if lines else ""


if __name__ == "__main__":
    sys.exit(main())
