"""A machine that goes before the time it was given is over, in the midst of the dump; and the run after that.

All neighbours dump at once, so the store becomes slow with the notice: too slow for what has changed since the last
snapshot, and far too slow for a full dump.
"""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import attrs

from tests.system.conftest import WORKLOADS, Bench, wait_until
from tests.workloads import large

#: Bytes a second before and after the notice.
FAST, SLOW = 1e9, 128e3
#: Lines of the task a second; before each a page is changed.
LINES_PER_S = 500


@attrs.frozen
class CutOff:
    """What became of a task whose machine was cut off.

    Attributes:
        lasted_s: How long the machine lasted after the notice.
        snapshots: How many snapshots were made ahead.
        promised_s: How much work is lost at most, as the run told.
        lost_lines: Lines that the task wrote before the notice and again after the resume.
        lost_s: The time from the first of them to the last.
        after_lines: Lines that it wrote after the notice, before it stood still.
        restore_s: How long the restore took.
    """

    lasted_s: float
    snapshots: int
    promised_s: float
    lost_lines: int
    lost_s: float
    after_lines: int
    restore_s: float


class Lines:
    """The lines of a run, each with the time it came."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.lines: list[str] = []
        self.times_s: list[float] = []
        self._stream = process.stdout
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self._stream is not None
        with self._stream:
            for line in self._stream:
                # Of the last one there may be a part only.
                if line.endswith(b"\n"):
                    self.times_s.append(time.monotonic())
                    self.lines.append(line.decode())

    def join(self) -> None:
        """Wait for the end of the stream."""
        self._thread.join(60)


def events_of(path: Path, name: str) -> list[dict[str, Any]]:
    """Return the events of that name so far."""
    lines = path.read_text().splitlines() if path.exists() else []
    # The last may just be written.
    return [
        one
        for one in (json.loads(line) for line in lines if line[-1:] == "}")
        if one["event"] == name
    ]


def cut_off(
    bench: Bench, *, mib: int, every_s: float, after_s: float, window_s: float = 120.0
) -> CutOff:
    """Run a task, announce a window, cut the machine off in the midst of the dump, and run the command again.

    Args:
        bench: Where to.
        mib: The task's memory.
        every_s: Seconds between two snapshots.
        after_s: When the machine goes, after the notice.
        window_s: The window that is announced.
    """
    rate, going, finish = (bench.folder / name for name in ("rate", "going", "finish"))
    first, second = bench.folder / "first", bench.folder / "second"
    command = [sys.executable, WORKLOADS / "large.py", mib, finish, LINES_PER_S]
    more = ["--reclaim", f"file={going}", "--events", first, "-q"]
    rate.write_text(str(FAST))
    process = bench.start_python(
        ["tests.system.slowed", rate, "run", "--snapshot-every", every_s, *more, "--", *command],
        stdout=subprocess.PIPE,
    )
    output = Lines(process)
    # One of them with the whole memory, and then half an interval's work that is not in it.
    wait_until(lambda: len(output.lines) > 0, "the task to write", 120)
    before = len(events_of(first, "snapshot"))
    wait_until(lambda: len(events_of(first, "snapshot")) > before, "a snapshot", 120)
    written = len(output.lines) + LINES_PER_S * every_s / 2
    wait_until(lambda: len(output.lines) > written, "the task to work on", 120)
    rate.write_text(str(SLOW))
    noticed_s = time.monotonic()
    going.write_text(f"{window_s:g}")
    wait_until(lambda: bool(events_of(first, "dumping")), "the dump to begin")
    time.sleep(max(0.0, noticed_s + after_s - time.monotonic()))
    assert process.poll() is None, "it was saved before the machine went"
    bench.machine_goes(process)
    bench.store.with_name("throttle").unlink()
    lasted_s = time.monotonic() - noticed_s
    output.join()
    made = events_of(first, "snapshot")
    (promise,) = events_of(first, "promise")

    again = bench.start(["run", "--events", second, "-q", "--", *command], stdout=subprocess.PIPE)
    resumed = Lines(again)
    wait_until(lambda: len(resumed.lines) > 1, "the task to go on", 120)
    finish.touch()
    assert again.wait(120) == 0
    resumed.join()
    (restored,) = events_of(second, "restored")
    assert restored["snapshot"] == made[-1]["snapshot"], "the newest one that was complete"
    # What a slow reader has not taken yet goes with the snapshot: it may begin within a line.
    kept = int(resumed.lines[1].split()[0]) - 1
    assert output.lines[kept - 1].endswith(resumed.lines[0])
    large.check("".join([*output.lines[:kept], *resumed.lines[1:]]), mib)
    lost_s = [one for one in output.times_s[kept:] if one <= noticed_s]
    return CutOff(
        lasted_s=lasted_s,
        snapshots=len(made),
        promised_s=promise["lost_s"],
        lost_lines=len(lost_s),
        lost_s=lost_s[-1] - lost_s[0] if lost_s else 0.0,
        after_lines=len(output.times_s) - kept - len(lost_s),
        restore_s=restored["restore_s"],
    )
