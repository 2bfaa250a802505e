"""Whatever fails in a dump, the task runs on unharmed and nothing half is kept."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from snaplib.checkpoint import Deadline, dump
from snaplib.criu import CriuError, Swrk
from snaplib.errors import DeadlineExceeded, DumpFailed, StoreFull
from snaplib.store import PageLogWriter, SnapshotWriter, Store
from snaplib.task import Task

#: Writes the time into its output again and again: a gap is the time for which it stood still.
TICKER = """
import sys, time
memory = bytearray(32 << 20)
while True:
    print(time.monotonic(), flush=True)
    time.sleep(0.005)
"""


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Keep records of sessions to ourselves."""
    monkeypatch.setenv("SNAPLIB_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setenv("SNAPLIB_SCRATCH_DIR", str(tmp_path))


class Ticker:
    """A task that ticks."""

    def __init__(self, out: Path) -> None:
        self.out = out
        self.task = Task.launch(
            ["python3", "-c", TICKER], stdin="/dev/null", stdout=out, stderr="/dev/null"
        )
        self.ticks_on()

    def ticks(self) -> list[float]:
        """Return when it has ticked."""
        lines = self.out.read_text().splitlines(keepends=True)
        return [float(line) for line in lines if line.endswith("\n")]

    def ticks_on(self) -> None:
        """Check that it still ticks."""
        before, end = len(self.ticks()), time.monotonic() + 60
        while len(self.ticks()) <= before + 3:
            assert time.monotonic() < end, "the task does not run"
            time.sleep(0.01)

    def longest_gap_s(self) -> float:
        """Return the longest time for which it stood still."""
        ticks = self.ticks()
        return max(later - earlier for earlier, later in itertools.pairwise(ticks))


@pytest.fixture
def ticker(tmp_path: Path) -> Iterator[Ticker]:
    """A task that ticks, and must tick on whatever a test does to it."""
    made = Ticker(tmp_path / "ticks")
    yield made
    made.ticks_on()
    session = made.task.session
    assert session is not None
    session.terminate()
    session.wait(30)
    session.cleanup()


def nothing_kept(store: Store, tmp_path: Path) -> None:
    """Check that neither a snapshot nor its debris is left."""
    assert store.snapshots() == []
    assert not list((tmp_path / "store").glob("objects/*/*"))
    assert not list(tmp_path.glob("snaplib-dump-*"))


def test_a_page_server_that_hangs(
    ticker: Ticker, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CRIU has no timeout of its own here: the watchdog must free the task before the page server goes on."""
    reserve = PageLogWriter.reserve

    def hangs(self: PageLogWriter, limit: int) -> memoryview:
        ticker.ticks_on()
        return reserve(self, limit)

    monkeypatch.setattr(PageLogWriter, "reserve", hangs)
    with pytest.raises(DeadlineExceeded):
        dump(ticker.task, store, deadline_s=2.0)
    nothing_kept(store, tmp_path)


@pytest.mark.parametrize("how", ["shorter", "taken back"])
def test_a_window_that_changes_while_the_task_stands_still(
    ticker: Ticker, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """The task runs on; only then does the store answer."""
    deadline = Deadline(3600.0)
    reserve = PageLogWriter.reserve

    def hangs(self: PageLogWriter, limit: int) -> memoryview:
        if how == "shorter":
            deadline.move(0.1)
        else:
            deadline.call_off()
        ticker.ticks_on()
        return reserve(self, limit)

    monkeypatch.setattr(PageLogWriter, "reserve", hangs)
    with pytest.raises(DeadlineExceeded, match="called off" if how == "taken back" else "not done"):
        dump(ticker.task, store, deadline_s=deadline)
    nothing_kept(store, tmp_path)


def test_a_store_that_hangs_at_the_end(
    ticker: Ticker, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The images are complete and the task frozen when the disk stops answering, until the task runs on."""
    put_directory = SnapshotWriter.put_directory

    def hangs(self: SnapshotWriter, *args: object, **options: object) -> None:
        ticker.ticks_on()
        put_directory(self, *args, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(SnapshotWriter, "put_directory", hangs)
    with pytest.raises(DeadlineExceeded):
        dump(ticker.task, store, deadline_s=2.0)
    nothing_kept(store, tmp_path)


def test_a_store_that_fills_up(
    ticker: Ticker, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cause is told, not what CRIU makes of it."""

    def full(_self: PageLogWriter, _limit: int) -> memoryview:
        raise StoreFull("no room left in the store")

    monkeypatch.setattr(PageLogWriter, "reserve", full)
    with pytest.raises(StoreFull):
        dump(ticker.task, store)
    nothing_kept(store, tmp_path)


def test_a_commit_that_fails(
    ticker: Ticker, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The last moment at which a dump can fail."""

    def fails(_self: SnapshotWriter, **_fields: object) -> None:
        raise StoreFull("no room left for the manifest")

    monkeypatch.setattr(SnapshotWriter, "commit", fails)
    with pytest.raises(StoreFull):
        dump(ticker.task, store)
    nothing_kept(store, tmp_path)


def test_an_answer_that_is_lost_after_the_yes(
    store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """CRIU has ended the task, or is about to: the snapshot is what is left of it."""
    ticker = Ticker(tmp_path / "ticks")
    session = ticker.task.session
    assert session is not None
    receive, saved = Swrk._receive, session.saved
    agreed: list[str] = []

    def loses(self: Swrk) -> object:
        if agreed:
            raise CriuError("it went away")
        return receive(self)

    def notes(snapshot: str, **options: bool) -> None:
        agreed.append(snapshot)
        saved(snapshot, **options)

    monkeypatch.setattr(Swrk, "_receive", loses)
    monkeypatch.setattr(session, "saved", notes)
    snapshot = dump(ticker.task, store)
    assert agreed == [snapshot.id]
    assert session.wait(30).saved == snapshot.id
    session.cleanup()
    assert store.verify(snapshot.id).ok


def test_what_criu_refuses(store: Store, tmp_path: Path) -> None:
    """CRIU's own reason is what the error says."""
    script = tmp_path / "refused.py"
    script.write_text(
        "import os, time\nfd = os.pidfd_open(1)\nprint('ready', flush=True)\ntime.sleep(100)\n"
    )
    out = tmp_path / "out"
    task = Task.launch(["python3", str(script)], stdin="/dev/null", stdout=out, stderr="/dev/null")
    session = task.session
    assert session is not None
    try:
        while "ready" not in out.read_text():
            time.sleep(0.01)
        with pytest.raises(DumpFailed, match="pidfd") as caught:
            dump(task, store, skip_preflight=True)
        assert any("pidfd" in reason for reason in caught.value.reasons)
        assert task.alive()
        nothing_kept(store, tmp_path)
    finally:
        session.terminate()
        session.wait(30)
        session.cleanup()


def test_left_running(ticker: Ticker, store: Store) -> None:
    """A snapshot of a task that runs on; it stands still only while it is dumped."""
    first = dump(ticker.task, store, leave_running=True)
    ticker.ticks_on()
    second = dump(ticker.task, store, leave_running=True)

    assert [one.id for one in store.snapshots()] == [second.id, first.id]
    assert store.verify(first.id).ok
    assert ticker.longest_gap_s() < 20.0
