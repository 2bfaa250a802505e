"""Workloads that hold one feature each, and CRIU itself as the judge."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import pytest

from snaplib.checkpoint.preflight import preflight
from snaplib.criu import find_criu
from snaplib.kernel import ProcFs
from snaplib.task import Task

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from snaplib.checkpoint.preflight import Obstacle

FEATURES = Path(__file__).parents[2] / "workloads" / "features.py"

#: What a dump passes to CRIU, so far as it decides what can be dumped.
DUMP_OPTIONS = (
    *("--tcp-established", "--ext-unix-sk", "--file-locks", "--link-remap"),
    *("--manage-cgroups=ignore", "--network-lock", "nftables"),
)
NEW_PID_NAMESPACE = ("unshare", "--fork", "--pid", "--mount-proc", "--kill-child")

READY_WITHIN_S = 20.0


def unsupported(reason: str) -> NoReturn:
    """Skip, or fail where everything is required to be tried."""
    if os.environ.get("SNAPLIB_REQUIRE_KERNEL") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


class Workload:
    """A running process that holds a feature."""

    def __init__(self, folder: Path, feature: str, argument: str = "", **popen: Any) -> None:
        self.folder = folder
        self.ready = folder / "ready"
        options: dict[str, Any] = {
            "stdin": subprocess.DEVNULL,
            "stdout": subprocess.DEVNULL,
            "stderr": subprocess.DEVNULL,
            "start_new_session": True,
            "cwd": "/",
        }
        self.process = subprocess.Popen(
            [sys.executable, FEATURES, feature, self.ready, argument], **(options | popen)
        )
        self.pid = self.process.pid

    def wait_until_ready(self) -> None:
        give_up = time.monotonic() + READY_WITHIN_S
        while not self.ready.exists():
            assert self.process.poll() is None, f"ended with {self.process.returncode}"
            assert time.monotonic() < give_up, "not ready in time"
            time.sleep(0.01)
        said = self.ready.read_text()
        if said != "ready":
            unsupported(said)

    def preflight(self, **options: Any) -> list[Obstacle]:
        # The judge is asked to keep connections.
        with Task.attach(self.pid) as task:
            return preflight(task, **{"tcp": "established", **options})

    def check(self) -> str:
        """Return what the workload says of itself."""
        command = [sys.executable, FEATURES, "check", self.ready]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()

    def kill(self) -> None:
        """End all its processes; the root goes last, so that none can hide."""
        for _ in range(200):
            try:
                below = ProcFs().tree(self.pid)[1:]
            except ProcessLookupError:
                break
            living = [pid for pid in below if not _ended(pid)]
            if not living:
                break
            for pid in living:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)
        self.process.kill()
        self.process.wait()

    def end(self) -> None:
        self.kill()
        orphan, queue, mount = (self.folder / name for name in ("orphan", "queue", "mount"))
        if orphan.exists():
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(orphan.read_text()), signal.SIGKILL)
        if queue.exists():
            subprocess.run(["ipcrm", "-q", queue.read_text()], check=True)
        if mount.is_mount():
            subprocess.run(["umount", mount], check=True)


def _ended(pid: int) -> bool:
    try:
        one = ProcFs().stat(pid)
    except ProcessLookupError:
        return True
    return one.zombie and len(ProcFs().threads(pid)) == 1


class CriuJudge:
    """Dumps and restores with CRIU's own command line."""

    def __init__(self, folder: Path) -> None:
        self.images = folder / "images"
        self.images.mkdir()
        self._criu = find_criu().path
        self._namespace: subprocess.Popen[bytes] | None = None

    def dump(self, pid: int, *options: str, enter: tuple[str, ...] = (), without: str = "") -> str:
        """Dump and let run; return the errors, empty when it succeeded."""
        usual = [one for one in DUMP_OPTIONS if one != without]
        command = [*enter, self._criu, "dump", "--tree", str(pid), "--leave-running"]
        command += [*self._common("dump.log"), *usual, *options]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        return self._errors("dump.log") if done.returncode else ""

    def restore(self, *options: str) -> str:
        """Restore into a PID namespace of its own; return the errors, empty when it succeeded."""
        result = self.images / "status"
        criu = [str(self._criu), "restore", "--restore-detached", *self._common("restore.log")]
        words = " ".join([*criu, *DUMP_OPTIONS, *options])
        self._namespace = subprocess.Popen(
            [*NEW_PID_NAMESPACE, "sh", "-c", f"{words}; echo $? > {result}; exec sleep 600"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        give_up = time.monotonic() + 30
        while not result.exists() or not result.read_text():
            assert time.monotonic() < give_up, "the restore hangs"
            time.sleep(0.02)
        return self._errors("restore.log") if int(result.read_text()) else ""

    def end(self) -> None:
        if self._namespace is not None:
            self._namespace.kill()
            self._namespace.wait()

    def _common(self, log: str) -> list[str]:
        return ["--images-dir", str(self.images), "--log-file", log, "-v2"]

    def _errors(self, log: str) -> str:
        text = (self.images / log).read_text(errors="replace")
        lines = [line for line in text.splitlines() if "Error (" in line and "rlimit" not in line]
        return re.sub(r"(?m)^\(\d+\.\d+\) *", "", "\n".join(lines)) or "failed without a word"


@pytest.fixture
def start(tmp_path: Path, require: Callable[..., None]) -> Iterator[Callable[..., Workload]]:
    """Start a workload by its feature's name; it ends with the test."""
    require("root")
    started: list[Workload] = []

    def start_one(feature: str, argument: str = "", **popen: Any) -> Workload:
        one = Workload(tmp_path, feature, argument, **popen)
        started.append(one)
        one.wait_until_ready()
        return one

    try:
        yield start_one
    finally:
        for one in started:
            one.end()


@pytest.fixture
def judge(tmp_path: Path, require: Callable[..., None]) -> Iterator[CriuJudge]:
    """CRIU itself."""
    require("root", "criu", "nftables", "pid_namespace")
    one = CriuJudge(tmp_path)
    try:
        yield one
    finally:
        one.end()
