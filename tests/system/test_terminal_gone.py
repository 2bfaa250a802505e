"""A terminal that goes away, as when the way to it is lost: a task that does not mind is looked after all the same."""

from __future__ import annotations

import fcntl
import os
import signal
import sys
import termios

from snaplib.errors import EXIT_SAVED
from tests.system.conftest import Bench, wait_until
from tests.system.cutoff import events_of

TASK = """
import signal, time
signal.signal(signal.SIGHUP, signal.SIG_IGN)
while True:
    print("x", flush=True)
    open("alive", "w").close()
    time.sleep(0.02)
"""


def test_the_run_goes_on_and_obeys_notices(bench: Bench) -> None:
    ours, theirs = os.openpty()

    def be_in_front() -> None:
        os.setsid()
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)
        signal.signal(signal.SIGHUP, signal.SIG_DFL)

    process = bench.start(
        ["run", "--events", "events", "--", sys.executable, "-c", TASK],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        preexec_fn=be_in_front,
    )
    os.close(theirs)
    alive = bench.folder / "alive"
    try:
        wait_until(alive.exists, "the task to run")
    finally:
        # The kernel tells of it by SIGHUP and SIGCONT.
        os.close(ours)
    alive.unlink()
    wait_until(alive.exists, "the task to run on")
    wait_until(lambda: bool(events_of(bench.folder / "events", "plan")), "the run to go on")
    assert process.poll() is None
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) == EXIT_SAVED
