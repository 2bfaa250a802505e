"""Arguments that cannot be meant are refused by name, before anything is done."""

from __future__ import annotations

import gc
import os
import pickle
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import snaplib
from snaplib import arguments
from snaplib.checkpoint import Deadline
from snaplib.errors import (
    EncryptionKeyError,
    SnaplibError,
    StillRunning,
    UsageError,
    WrongType,
)
from snaplib.observe import TraceWriter
from snaplib.session.outer import Outer

NAN, INF = float("nan"), float("inf")


@pytest.fixture
def task() -> Iterator[snaplib.Task]:
    """A task that nothing is done to: ours, for want of another that needs no root."""
    with snaplib.Task(os.getpid()) as own:
        yield own


@pytest.fixture
def store(tmp_path: Path) -> snaplib.Store:
    return snaplib.Store.open(tmp_path / "store")


@pytest.fixture
def profile(task: snaplib.Task) -> snaplib.Profile:
    with snaplib.Watch(task, arm="none", source="proc") as watch:
        return watch.profile()


def call_all(task: Any, store: Any, profile: Any) -> dict[str, Callable[[], object]]:
    """Return calls of the public functions, each with one argument that cannot be meant."""
    supervisor = snaplib.Supervisor
    launch = snaplib.Task.launch
    true = ["true"]
    return {
        "attach, text": lambda: snaplib.Task.attach("12"),  # type: ignore[arg-type]
        "attach, none": lambda: snaplib.Task.attach(None),  # type: ignore[arg-type]
        "attach, fraction": lambda: snaplib.Task.attach(1.5),  # type: ignore[arg-type]
        "launch, one text": lambda: launch("sleep 5"),
        "launch, no text": lambda: launch(["true", 5]),  # type: ignore[list-item]
        "launch, NUL": lambda: launch(["true", "a\0b"]),
        "launch, cwd": lambda: launch(true, cwd=5),  # type: ignore[arg-type]
        "launch, env": lambda: launch(true, env={"A": 5}),  # type: ignore[dict-item]
        "launch, name of a variable": lambda: launch(true, env={"A=B": "c"}),
        "launch, NUL in env": lambda: launch(true, env={"A": "\0"}),
        "launch, name": lambda: launch(true, name=5),  # type: ignore[arg-type]
        "launch, empty key": lambda: launch(true, key=""),
        "launch, closed stdout": lambda: launch(true, stdout=99999),
        "launch, pipe": lambda: launch(true, stdin=subprocess.PIPE),
        "launch, no stream": lambda: launch(true, stdin=NAN),
        "open, none": lambda: snaplib.Store.open(None),  # type: ignore[arg-type]
        "open, blank": lambda: snaplib.Store.open(" "),
        "open, NUL": lambda: snaplib.Store.open("a\0b"),
        "open, one slash": lambda: snaplib.Store.open("s3:/bucket"),
        "ids": lambda: store.ids(5),
        "latest": lambda: store.latest(None),
        "prune, nan": lambda: store.prune(older_than_s=NAN),
        "prune, text": lambda: store.prune(keep="1"),
        "watch, pid": lambda: snaplib.Watch(5),  # type: ignore[arg-type]
        "watch, text": lambda: snaplib.Watch(task, "1"),  # type: ignore[arg-type]
        "watch, arm": lambda: snaplib.Watch(task, arm="some"),  # type: ignore[arg-type]
        "watch, source": lambda: snaplib.Watch(task, source="x"),  # type: ignore[arg-type]
        "watch, on_profile": lambda: snaplib.Watch(task, on_profile=5),  # type: ignore[arg-type]
        "forecast, task": lambda: snaplib.forecast(task),
        "forecast, text": lambda: snaplib.forecast(profile, window_s="1"),  # type: ignore[arg-type]
        "forecast, age": lambda: snaplib.forecast(profile, warm_age_s=NAN),
        "forecast, dirty": lambda: snaplib.forecast(profile, warm_age_s=1, warm_dirty_bytes=INF),
        "forecast, host": lambda: snaplib.forecast(profile, host="x"),  # type: ignore[arg-type]
        "forecast, store": lambda: snaplib.forecast(profile, store=5),  # type: ignore[arg-type]
        "plan": lambda: snaplib.plan(profile),
        "preflight, pid": lambda: snaplib.preflight(5),  # type: ignore[arg-type]
        "preflight, tcp": lambda: snaplib.preflight(task, tcp="x"),
        "dump, pid": lambda: snaplib.dump(5, store),  # type: ignore[arg-type]
        "dump, address": lambda: snaplib.dump(task, "folder"),  # type: ignore[arg-type]
        "dump, for ever": lambda: snaplib.dump(task, store, deadline_s=INF),
        "dump, nan": lambda: snaplib.dump(task, store, deadline_s=NAN),
        "dump, no time": lambda: snaplib.dump(task, store, deadline_s=0),
        "dump, letters": lambda: snaplib.dump(task, store, capture="/etc/*"),
        "dump, empty pattern": lambda: snaplib.dump(task, store, capture=[""]),
        "dump, empty key": lambda: snaplib.dump(task, store, key=""),
        "dump, progress": lambda: snaplib.dump(task, store, progress=5),  # type: ignore[arg-type]
        "dump, plan": lambda: snaplib.dump(task, store, plan="warm"),  # type: ignore[arg-type]
        "dump, warm": lambda: snaplib.dump(task, store, warm=5),  # type: ignore[arg-type]
        "dump, watch": lambda: snaplib.dump(task, store, watch=profile),
        "restore, address": lambda: snaplib.restore("folder", "2026"),  # type: ignore[arg-type]
        "restore, snapshot": lambda: snaplib.restore(store, None),  # type: ignore[arg-type]
        "restore, no time": lambda: snaplib.restore(store, "2026", deadline_s=0),
        "restore, nan": lambda: snaplib.restore(store, "2026", deadline_s=NAN),
        "restore, files": lambda: snaplib.restore(store, "2026", changed_files="x"),
        "warm, address": lambda: snaplib.WarmCopy(task, "folder"),  # type: ignore[arg-type]
        "warm, pace": lambda: snaplib.WarmCopy(task, store, pace=5),  # type: ignore[arg-type]
        "signal": lambda: task.signal(999),
        "wait": lambda: task.wait(NAN),
        "frozen": lambda: task.frozen(INF).__enter__(),
        "supervisor, one text": lambda: supervisor("sleep 5", store=store),
        "supervisor, address": lambda: supervisor(true, store="x"),  # type: ignore[arg-type]
        "supervisor, empty key": lambda: supervisor(true, store=store, key=""),
        "supervisor, window": lambda: supervisor(true, store=store, window_s=NAN),
        "supervisor, status": lambda: supervisor(true, store=store, exit_saved=256),
        "supervisor, tcp": lambda: supervisor(true, store=store, tcp="x"),
        "supervisor, source": lambda: supervisor(true, store=store, reclaim=["aws"]),  # type: ignore[list-item]
        "supervisor, letters": lambda: supervisor(true, store=store, capture="*.log"),
        "trace": lambda: snaplib.Trace(99),  # type: ignore[arg-type]
        "trace of a folder": lambda: snaplib.Trace("/"),
        "trace to a folder": lambda: TraceWriter("/"),
        "deadline": lambda: Deadline(INF),
    }


def test_each_is_an_error_of_ours(
    task: snaplib.Task, store: snaplib.Store, profile: snaplib.Profile
) -> None:
    """One line that a caller can show; nothing is made in the folder or the store."""
    wrong = {}
    for name, call in call_all(task, store, profile).items():
        with pytest.raises(Exception) as raised:  # noqa: PT011  told below, all at once
            call()
        if not isinstance(raised.value, SnaplibError) or len(str(raised.value).splitlines()) != 1:
            wrong[name] = repr(raised.value)
    assert wrong == {}
    assert store.ids() == []


def test_what_builtins_would_catch() -> None:
    assert issubclass(WrongType, TypeError)
    assert issubclass(WrongType, ValueError)
    assert issubclass(StillRunning, TimeoutError)


@pytest.mark.parametrize("key", [b"", b"short", b"x" * 33, ""])
def test_a_store_is_not_encrypted_with_less_than_a_key(tmp_path: Path, key: str | bytes) -> None:
    """Nor is it left plain where a key was given, be it an empty one."""
    with pytest.raises(EncryptionKeyError):
        snaplib.Store.open(tmp_path / "store", encryption_key=key)
    assert not (tmp_path / "store").exists()


def test_paths_may_be_bytes(tmp_path: Path) -> None:
    assert snaplib.Store.open(os.fsencode(tmp_path / "store")).url
    outer = Outer(stdout=os.fsencode(tmp_path / "out"))
    outer.close()
    assert (tmp_path / "out").exists()
    assert arguments.command_words([b"sh", Path("x")]) == ("sh", "x")


def test_nothing_is_older_than_time(store: snaplib.Store) -> None:
    assert store.prune(older_than_s=INF) == store.prune(older_than_s=1e300) == []


def test_a_wait_that_is_over_at_once(task: snaplib.Task) -> None:
    """A negative time is no time, and not for ever."""
    for timeout_s in (0, -1, -INF):
        with pytest.raises(StillRunning):
            task.wait(timeout_s)


@pytest.mark.parametrize("timeout_s", [None, 1e300, INF])
def test_more_than_a_system_call_takes_is_for_ever(timeout_s: float | None) -> None:
    assert arguments.milliseconds(timeout_s) is None


def test_a_task_that_was_closed_is_not_taken_for_one_that_has_ended() -> None:
    task = snaplib.Task(os.getpid())
    task.close()
    task.close()
    for call in (task.alive, task.members, task.wait, lambda: task.signal(0)):
        with pytest.raises(UsageError, match="closed"):
            call()


def test_a_callback_that_fails_leaves_no_watch(task: snaplib.Task) -> None:
    """Its programs and descriptors go with it."""

    def fail(_profile: snaplib.Profile) -> None:
        raise ZeroDivisionError

    before = sorted(Path("/proc/self/fd").iterdir())
    with (
        pytest.raises(ZeroDivisionError),
        snaplib.Watch(task, arm="none", source="proc", on_profile=fail),
    ):
        pass
    assert sorted(Path("/proc/self/fd").iterdir()) == before


def test_records_travel(profile: snaplib.Profile) -> None:
    """Between processes of a scheduler, by pickle."""
    forecast = snaplib.forecast(profile)
    copy, plan = pickle.loads(pickle.dumps((forecast, snaplib.plan(forecast))))
    assert copy.best.duration_s == forecast.best.duration_s
    assert plan == snaplib.plan(forecast)
    again = pickle.loads(pickle.dumps(profile))
    assert again.dumpable_bytes == profile.dumpable_bytes
    assert again.distinct_dirty_bytes(1.0) == profile.distinct_dirty_bytes(1.0)
    for error in (UsageError("a", hint="b"), StillRunning("c")):
        back = pickle.loads(pickle.dumps(error))
        assert (type(back), str(back), back.hint) == (type(error), str(error), error.hint)


def test_supervisors_leave_no_descriptors(store: snaplib.Store) -> None:
    for _ in range(2):
        before = len(list(Path("/proc/self/fd").iterdir()))
        snaplib.Supervisor(["true"], store=store)
        gc.collect()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def test_importing_does_nothing() -> None:
    """No numpy, no thread, no file, no signal handler: whoever embeds it pays when he uses it."""
    script = (
        "import os, signal, sys, threading\n"
        "before = signal.getsignal(signal.SIGTERM), set(os.listdir('/proc/self/fd'))\n"
        "import snaplib\n"
        "assert before == (signal.getsignal(signal.SIGTERM), set(os.listdir('/proc/self/fd')))\n"
        "assert threading.active_count() == 1\n"
        "heavy = {'numpy', 'attrs', 'obstore', 'rich', 'cryptography', 'bcc', 'asyncio'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", script], check=True)
