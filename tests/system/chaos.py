"""Interrupting one task again and again, in every way and at any moment, and checking what it has written."""

from __future__ import annotations

import collections
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

from tests.system.conftest import WORKLOADS, Bench, wait_until
from tests.workloads.chained import check

SAVED = 75

#: How a run can be interrupted, and how often of each there are.
WAYS = {
    "notice": 6,
    "two notices at once": 3,
    "notice, supervisor killed": 4,
    "supervisor killed": 3,
    "notice, machine gone": 4,
    "machine gone": 2,
    "notice taken back": 2,
}


class Chaos:
    """One task and everything that happens to it.

    Args:
        bench: Where.
        seed: Repeats the choices, though not the machine's timing.

    Attributes:
        counts: How often each way was taken.
        ends: How often runs ended with each status.
    """

    def __init__(self, bench: Bench, seed: int) -> None:
        self.bench = bench
        self.seed = seed
        self.counts: collections.Counter[str] = collections.Counter()
        self.ends: collections.Counter[int] = collections.Counter()
        self._chance = random.Random(seed)
        self._finish = bench.folder / "finish"
        self._going = bench.folder / "going"
        self._out = bench.folder / "out"
        self._err = bench.folder / "err"
        self._events = bench.folder / "events"
        self._newest: Path | None = None
        self._saved_bytes = 0
        self._command = [sys.executable, str(WORKLOADS / "chained.py"), str(self._finish)]

    def start(self):
        """Run the command line, with its output appended to the same file each time."""
        with self._out.open("ab") as out, self._err.open("ab") as err:
            options = ["--once", "--reclaim", f"file={self._going}", "--events", self._events]
            return self.bench.start(["run", *options, "--", *self._command], stdout=out, stderr=err)

    def interrupt(self) -> str:
        """Run the command and interrupt it in some way; return which."""
        way = self._chance.choices(list(WAYS), list(WAYS.values()))[0]
        self.counts[way] += 1
        process = self.start()
        self._wait_for_the_moment(process)
        if "notice" in way and way != "notice taken back":
            process.send_signal(self._chance.choice([signal.SIGTERM, signal.SIGUSR1]))
        if way == "two notices at once":
            time.sleep(self._chance.choice([0.0, self._chance.uniform(0, 0.3)]))
            self._going.write_text("60")
            process.send_signal(signal.SIGTERM)
        if way == "notice taken back":
            self._going.write_text("60")
            time.sleep(self._chance.uniform(0, 0.8))
            self._going.unlink()
            time.sleep(self._chance.uniform(0, 0.3))
            process.send_signal(signal.SIGTERM)
        if "killed" in way or "gone" in way:
            time.sleep(self._chance.uniform(0, 0.6))
            process.kill()
        if "gone" in way:
            for pid in self.bench.sessions():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            wait_until(lambda: not self.bench.sessions(), "the machine to be gone")
            # /run goes with the machine, and the file is on a disk that is as it was at the snapshot.
            shutil.rmtree(self.bench.runtime, ignore_errors=True)
        status = process.wait(100)
        self.ends[status] += 1
        self._going.unlink(missing_ok=True)
        self._keep_in_step(gone="gone" in way)
        killed = "killed" in way or "gone" in way
        # A signal can come before Python has installed its handlers.
        early = (-signal.SIGTERM, -signal.SIGUSR1)
        allowed = {SAVED, *early, *((-signal.SIGKILL,) if killed else ())}
        assert status in allowed, f"{self.told()}: {way}: {status}"
        assert len(self.bench.sessions()) <= 1, f"{self.told()}: the command was started twice"
        return way

    def _keep_in_step(self, *, gone: bool) -> None:
        """Know how long the output was when the newest snapshot was taken, and cut it to that with the machine."""
        newest = max(self.bench.store.glob("manifests/*/*.json"), default=None)
        if newest != self._newest and not self.bench.sessions():
            self._newest, self._saved_bytes = newest, self._out.stat().st_size
        elif gone:
            os.truncate(self._out, self._saved_bytes)

    def _wait_for_the_moment(self, process: subprocess.Popen[bytes]) -> None:
        """Some while Python or the task starts, some while it is restored, most while it runs."""
        sessions = self.bench.sessions
        conditions = [
            lambda: True,
            lambda: bool(sessions()),
            lambda: bool(sessions(running=True)),
        ]
        condition = self._chance.choices(conditions, [1, 2, 3])[0]
        wait_until(lambda: condition() or process.poll() is not None, "the moment")
        time.sleep(self._chance.uniform(0, 1.0))

    def finish(self) -> int:
        """Let the task end, check what it has written, and run it once more; return how many lines there are."""
        self._finish.touch()
        status = self.start().wait(100)
        assert status == 0, f"{self.told()}: {status}"
        try:
            lines = check(self._out.read_text())
        except AssertionError as error:
            raise AssertionError(f"{self.told()}: {str(error)[:200]}") from None
        assert self.bench.sessions() == [], self.told()
        again = self.bench.run("run", "--once", "--", *self._command)
        assert (again.returncode, again.stdout) == (0, ""), self.told()
        return lines

    def told(self) -> str:
        """Return what is needed to find out what went wrong."""
        tail = self._err.read_text().splitlines()[-12:] if self._err.exists() else []
        return f"seed {self.seed}, {dict(self.counts)}; " + " | ".join(tail)

    def latencies_s(self) -> list[float]:
        """Return the seconds from each notice to the beginning of the dump."""
        return [
            event["notice_to_dump_s"]
            for event in map(json.loads, _lines(self._events))
            if event["event"] == "dumping" and event["attempt"] == 1
        ]

    def names(self) -> collections.Counter[str]:
        """Return how often each event was told."""
        return collections.Counter(json.loads(line)["event"] for line in _lines(self._events))


def _lines(path: Path) -> list[str]:
    # A kill can cut the last line of a run short.
    return [line for line in path.read_text().splitlines() if line.endswith("}")]
