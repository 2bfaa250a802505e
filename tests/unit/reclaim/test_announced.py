"""Notice given by hand: a run's mailbox, those who put something into it, and the source that looks there."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from snaplib.cli import main
from snaplib.errors import NoSuchTask, RootRequired, UsageError
from snaplib.event import Event
from snaplib.reclaim import Announced, Mailbox, Notice, NoticeKind, runs_here


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A runtime folder of the test's own."""
    path = tmp_path / "runtime"
    monkeypatch.setenv("SNAPLIB_RUNTIME_DIR", str(path))
    return path


@pytest.fixture
def mailbox(clock) -> Iterator[Mailbox]:
    with Mailbox("run-1", "sort-1", 90.0, clock) as made:
        yield made


def event(name: str, state: str, **details: object) -> Event:
    return Event(name, 0.0, "sort-1", details, state)


def the_run(clock):
    (run,) = runs_here(clock)
    return run


def test_a_run_says_who_it_is_and_how_it_gets_on(mailbox: Mailbox, clock) -> None:
    run = the_run(clock)
    card = run.card
    assert (card.name, card.key, card.pid) == ("run-1", "sort-1", os.getpid())
    assert (card.window_s, card.task_pid, card.state) == (90.0, 0, "starting")
    mailbox.tell(event("started", "running", pid=23))
    mailbox.tell(event("saved", "saved", snapshot="s1"))
    assert run.refresh()
    assert (run.card.task_pid, run.card.state, run.card.snapshot) == (23, "saved", "s1")


def test_what_a_run_told_last_is_known_when_it_is_gone(clock) -> None:
    with Mailbox("run-1", "sort-1", 90.0, clock) as mailbox:
        run = the_run(clock)
        reason = "\N{SNOWMAN}" * 5000
        mailbox.tell(event("failed", "failed", reason=reason, exit_code=175))
    assert not run.refresh()
    assert (run.card.state, run.card.exit_code) == ("failed", 175)
    assert reason.startswith(run.card.reason)
    assert runs_here(clock) == []
    assert list(mailbox.folder.iterdir()) == []


def test_notice_is_heard_and_counts_from_when_it_was_given(mailbox: Mailbox, clock, step) -> None:
    source, run = Announced(mailbox, clock=clock), the_run(clock)
    assert step(source) == []
    assert run.announce(30.0) == 30.0
    clock.now_s += 7
    assert step(source) == [Notice("announced", 23.0, detail="by snaplib notice")]
    assert step(source) == []


def test_a_notice_without_a_window_has_the_runs_own(mailbox: Mailbox, clock, step) -> None:
    assert the_run(clock).announce() == 90.0
    (notice,) = step(Announced(mailbox, clock=clock))
    assert notice.window_s == 90.0


def test_twice_is_no_longer_than_once(mailbox: Mailbox, clock, step) -> None:
    source, run = Announced(mailbox, clock=clock), the_run(clock)
    run.announce(30.0)
    assert len(step(source)) == 1
    assert run.announce(60.0) == 30.0
    assert step(source) == []
    assert run.announce(11.0) == 11.0
    assert [one.window_s for one in step(source)] == [11.0]


def test_a_notice_whose_window_is_over_does_not_shorten_the_next(mailbox: Mailbox, clock) -> None:
    run = the_run(clock)
    run.announce(30.0)
    clock.now_s += 31
    assert run.announce(60.0) == 60.0


def test_a_notice_taken_back(mailbox: Mailbox, clock, step) -> None:
    source, run = Announced(mailbox, clock=clock), the_run(clock)
    run.announce(30.0)
    step(source)
    assert run.cancel()
    assert [one.kind for one in step(source)] == [NoticeKind.CANCELLED]
    assert not run.cancel()


def test_a_file_that_is_no_notice_is_trouble(mailbox: Mailbox, clock, step) -> None:
    mailbox.notice_path.write_text("soon")
    (notice,) = step(Announced(mailbox, clock=clock))
    assert notice.kind is NoticeKind.TROUBLE
    assert "snaplib notice" in notice.detail


@pytest.mark.parametrize(("later_s", "heard"), [(29.0, 1), (31.0, 0)])
def test_what_a_killed_supervisor_was_told_counts_for_the_next(
    clock, step, later_s: float, heard: int
) -> None:
    killed = Mailbox("run-1", "sort-1", 90.0, clock)
    killed.__enter__()
    the_run(clock).announce(30.0)
    os.close(killed._descriptor)
    clock.now_s += later_s
    with Mailbox("run-1", "sort-1", 90.0, clock) as mailbox:
        assert len(step(Announced(mailbox, clock=clock))) == heard
        assert len(runs_here(clock)) == 1


def test_a_killed_run_is_forgotten(clock, runtime: Path) -> None:
    killed = Mailbox("run-1", "sort-1", 90.0, clock)
    killed.__enter__()
    os.close(killed._descriptor)
    assert runs_here(clock) == []
    assert list((runtime / "notices").iterdir()) == []


def test_a_change_is_heard_at_once(mailbox: Mailbox, clock) -> None:
    """Not only after the half minute after which it is looked in any case."""
    reported: list[Notice] = []
    heard, stop = threading.Event(), threading.Event()

    def report(notice: Notice) -> None:
        reported.append(notice)
        heard.set()

    source = Announced(mailbox, clock=clock)
    thread = threading.Thread(target=source.watch, args=(report, stop))
    thread.start()
    the_run(clock).announce(30.0)
    assert heard.wait(25)
    assert reported[0].window_s == 30.0
    stop.set()
    # Whatever happens in the folder wakes it.
    mailbox.notice_path.unlink()
    thread.join(25)
    assert not thread.is_alive()


def test_where_changes_cannot_be_heard_it_is_looked(
    mailbox: Mailbox, clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(_path: Path) -> None:
        raise OSError(24, "inotify_init1: Too many open files")

    monkeypatch.setattr("snaplib.reclaim.announced.FolderChanges", none_left)
    the_run(clock).announce(30.0)
    reported, stop = [], threading.Event()

    def report(notice: Notice) -> None:
        reported.append(notice)
        stop.set()

    Announced(mailbox, interval_s=0.05, clock=clock).watch(report, stop)
    assert len(reported) == 1


# -- the command


def told(capsys: pytest.CaptureFixture[str]) -> dict[str, object]:
    return json.loads(capsys.readouterr().out)


def test_nobody_to_tell(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", os.getuid)
    if os.getuid() == 0:
        assert main(["notice", "--all", "--wait"]) == 0
        assert "nothing to save" in capsys.readouterr().err
        assert main(["notice"]) == UsageError.exit_code
        assert main(["notice", "sort-1"]) == NoSuchTask.exit_code
        assert "there is no run 'sort-1'" in capsys.readouterr().err
    else:
        assert main(["notice", "--all"]) == RootRequired.exit_code
        assert "run it as root" in capsys.readouterr().err


@pytest.mark.parametrize("window", ["0", "-3", "nan", "inf", "soon"])
def test_a_window_that_cannot_be_meant(window: str, mailbox: Mailbox) -> None:
    try:
        status = main(["notice", "--all", f"--window={window}"])
    except SystemExit as end:
        status = end.code
    assert status == UsageError.exit_code
    assert not mailbox.notice_path.exists()


@pytest.mark.parametrize(
    "words", [["x", "--all"], ["--cancel", "--wait"], ["--cancel", "--window", "3"]]
)
def test_what_does_not_go_together(words: list[str], mailbox: Mailbox) -> None:
    assert main(["notice", *words]) == UsageError.exit_code


def test_one_of_several_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with Mailbox("run-1", "sort-1", 90.0) as first, Mailbox("run-2", "sort-2", 90.0) as second:
        first.tell(event("started", "running", pid=1234567))
        assert main(["notice"]) == UsageError.exit_code
        assert "sort-1 (pid " in capsys.readouterr().err
        for which in ("run-1", "sort-1", "1234567"):
            assert main(["notice", which]) == 0
            assert first.notice_path.exists()
            assert not second.notice_path.exists()
            assert main(["notice", which, "--cancel", "--json"]) == 0
        assert main(["notice", str(os.getpid())]) == UsageError.exit_code
        assert main(["notice", "--all"]) == 0
        assert second.notice_path.exists()


def test_others_folders_are_not_used(runtime: Path) -> None:
    runtime.mkdir()
    runtime.chmod(0o777)
    assert main(["notice", "--all"]) == UsageError.exit_code


@pytest.mark.parametrize(
    ("last", "outcome", "status"),
    [
        (event("saved", "saved", snapshot="s1"), "saved", 0),
        (event("ended", "done", exit_code=3), "ended", 0),
        (event("failed", "failed", reason="io_uring", exit_code=177), "failed", 177),
        (event("killed", "failed", signal=9, exit_code=None), "failed", 175),
        (event("dumping", "dumping"), "killed", 175),
    ],
)
def test_waiting_for_what_becomes_of_it(
    last: Event, outcome: str, status: int, capsys: pytest.CaptureFixture[str]
) -> None:
    mailbox = Mailbox("run-1", "sort-1", 90.0)
    mailbox.__enter__()

    def live() -> None:
        while not mailbox.notice_path.exists():
            stop.wait(0.01)
        mailbox.tell(last)
        if outcome == "killed":
            os.close(mailbox._descriptor)
        else:
            mailbox.__exit__()

    stop = threading.Event()
    thread = threading.Thread(target=live)
    thread.start()
    assert main(["notice", "--wait", "--json"]) == status
    thread.join(25)
    (one,) = told(capsys)["runs"]
    assert one["outcome"] == outcome
    assert one["key"] == "sort-1"


def test_a_window_that_ends_before_it_is_saved(
    mailbox: Mailbox, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("snaplib.cli.notice._GRACE_S", 0.0)
    mailbox.tell(event("notice", "noticed"))
    assert main(["notice", "--wait", "--window", "0.01"]) == 175
    assert "the window is over" in capsys.readouterr().err


def test_a_notice_taken_back_while_it_is_waited_for(
    mailbox: Mailbox, capsys: pytest.CaptureFixture[str]
) -> None:
    def take_back() -> None:
        while not mailbox.notice_path.exists():
            stop.wait(0.01)
        mailbox.notice_path.unlink()

    stop = threading.Event()
    thread = threading.Thread(target=take_back)
    thread.start()
    assert main(["notice", "--wait"]) == 175
    thread.join(25)
    assert "taken back" in capsys.readouterr().err
