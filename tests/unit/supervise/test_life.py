"""A task's life without a task: what is done when, with a session and a saver that only say so."""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import pytest

from snaplib.checkpoint import Deadline
from snaplib.errors import DumpFailed, SnaplibError, StoreUnreachable
from snaplib.event import Event
from snaplib.node import Waiting
from snaplib.reclaim import Notice, NoticeKind
from snaplib.session import ExitStatus
from snaplib.store import Snapshot
from snaplib.supervise import Expected, State
from snaplib.supervise.inbox import Inbox
from snaplib.supervise.life import Life
from snaplib.supervise.promise import Promise
from snaplib.supervise.states import StateMachine


class FakeSession:
    """Ends when it is told to."""

    def __init__(self) -> None:
        self.pidfd, self._write = os.pipe()
        self.status = ExitStatus(exit_code=0)

    def end(self, status: ExitStatus | None = None) -> None:
        self.status = status or self.status
        os.write(self._write, b"!")

    def wait(self) -> ExitStatus:
        return self.status

    def cleanup(self) -> None:
        pass

    def close(self) -> None:
        os.close(self.pidfd)
        os.close(self._write)


class FakeSaver:
    """Saves and copies as the test says."""

    def __init__(self) -> None:
        self.saves: list[Callable[[Deadline], object]] = []
        self.copies: list[Callable[[threading.Event], dict[str, object]]] = []
        self.snapshots: list[Callable[[Deadline], object]] = []
        self.failures: list[int] = []
        self.hints = 0
        self.closed = False

    def next_copy_s(self) -> float | None:
        return 0.0 if self.copies else None

    def copy(self, stop: threading.Event) -> dict[str, object]:
        return self.copies.pop(0)(stop)

    def hint(self) -> None:
        self.hints += 1

    def snapshot(self, deadline: Deadline) -> object:
        return self.snapshots.pop(0)(deadline)

    def expect(self) -> Expected:
        return Expected(1 << 20, 2.5)

    def save(self, deadline: Deadline, failures: tuple[SnaplibError, ...]) -> object:
        self.failures.append(len(failures))
        return self.saves.pop(0)(deadline)

    def close(self) -> None:
        self.closed = True


class Quiet:
    """A lookout that sees nothing."""

    def next_s(self) -> float:
        return 3600.0

    def look_if_due(self) -> None:
        """It is never due."""


class FakeTurn:
    """The node, as the test says."""

    def __init__(self) -> None:
        self.waits: list[Waiting] = []
        self.calls: list[str] = []

    def begin(self) -> Waiting | None:
        return self.waits.pop(0) if self.waits else None

    def __getattr__(self, name: str) -> Callable[..., None]:
        return lambda *_arguments, **_more: self.calls.append(name)


class Scene:
    """A life in which the test is everybody else."""

    def __init__(self, every_s: float | None = None) -> None:
        self.session, self.saver, self.inbox = FakeSession(), FakeSaver(), Inbox()
        self.alive = True
        self.turn = FakeTurn()
        self.removed: list[str] = []
        self.limit: Callable[[], float] | None = None
        self.events: list[Event] = []
        #: Called when an event of that name is told.
        self.when: dict[str, Callable[[], object]] = {}
        machine = StateMachine("key", self._told)
        machine.state = State.RUNNING
        self.machine = machine
        self.life = Life(
            SimpleNamespace(alive=lambda: self.alive),
            self.session,
            terminal=SimpleNamespace(refresh=lambda: None),
            saver=self.saver,
            lookout=Quiet(),
            turn=self.turn,
            inbox=self.inbox,
            machine=machine,
            window_s=120.0,
            store=SimpleNamespace(remove=self.removed.append, backend=self),
            promise=Promise(every_s),
        )

    def limit_by(self, left_s: Callable[[], float] | None) -> None:
        """How long the store may take."""
        self.limit = left_s

    def _told(self, event: Event) -> None:
        self.events.append(event)
        self.when.get(event.name, lambda: None)()

    @property
    def names(self) -> list[str]:
        return [event.name for event in self.events]

    def notice(self, source: str = "signal", window_s: float | None = None, **more) -> None:
        self.inbox.put(Notice(source, window_s, **more))

    def close(self) -> None:
        self.session.close()
        self.inbox.close()


@pytest.fixture
def scene() -> Iterator[Scene]:
    made = Scene()
    yield made
    made.close()


def saved(_deadline: Deadline) -> object:
    return SimpleNamespace(
        id="20261128T000000.000000-abcdef",
        raw_bytes=1 << 20,
        stored_bytes=1 << 19,
        timings={"frozen_s": 0.25},
        extra={
            "warm": {"final_bytes": 4096},
            "forecast": {"duration_s": {"median": 1.5}, "size_bytes": {"median": 5000}},
        },
    )


def fails(_deadline: Deadline) -> object:
    raise DumpFailed("no")


def until_called_off(deadline: Deadline) -> object:
    assert deadline.wait(lambda: False)
    raise DumpFailed("called off" if deadline.called_off else "too late")


def test_a_task_that_ends(scene: Scene) -> None:
    scene.session.end(ExitStatus(exit_code=7))
    assert scene.life.run().exit_code == 7
    assert scene.names == []
    assert scene.saver.closed


def test_a_task_that_is_saved(scene: Scene) -> None:
    scene.saver.saves = [saved]
    scene.notice(window_s=30.0)
    status = scene.life.run()

    assert status.saved == "20261128T000000.000000-abcdef"
    assert scene.names == ["notice", "dumping", "saved"]
    assert [event.state for event in scene.events] == ["noticed", "dumping", "saved"]
    assert scene.events[0].details["window_s"] == pytest.approx(30.0, abs=20)
    told = scene.events[-1].details
    assert (told["forecast_s"], told["forecast_bytes"], told["final_bytes"]) == (1.5, 5000, 4096)


def test_a_dump_that_fails_is_tried_again_with_what_went_wrong(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("snaplib.supervise.tries._RETRY_AFTER_S", (0.0, 0.0))
    scene.saver.saves = [fails, fails, saved]
    scene.notice()
    assert scene.life.run().saved
    assert scene.saver.failures == [0, 1, 2]
    assert scene.names == ["notice", *["dumping", "dump_failed"] * 2, "dumping", "saved"]


def test_a_task_that_cannot_be_saved_runs_to_the_end_of_the_window(scene: Scene) -> None:
    scene.saver.saves = [fails]
    scene.notice(window_s=0.5)
    with pytest.raises(DumpFailed, match="no"):
        scene.life.run()
    assert scene.names == ["notice", "dumping", "dump_failed", "failed"]
    assert scene.machine.state is State.FAILED


def test_a_store_that_fails_in_a_window_is_a_dump_that_fails(scene: Scene) -> None:
    """Whoever runs us knows two statuses for that, and a usage error is none of them."""

    def unreachable(_deadline: Deadline) -> object:
        raise StoreUnreachable("nobody there", hint="look")

    scene.saver.saves = [unreachable]
    scene.notice(window_s=0.5)
    with pytest.raises(DumpFailed, match="nobody there; the task runs on - look"):
        scene.life.run()
    assert scene.events[-1].details["exit_code"] == DumpFailed.exit_code


def test_a_task_that_ends_by_itself_after_a_dump_has_failed(scene: Scene) -> None:
    scene.saver.saves = [fails]
    scene.when["dump_failed"] = scene.session.end
    scene.notice()
    assert scene.life.run().exit_code == 0
    assert scene.names == ["notice", "dumping", "dump_failed"]


def test_a_task_that_ends_while_it_is_being_dumped(scene: Scene) -> None:
    def end(_deadline: Deadline) -> object:
        scene.alive = False
        scene.session.end(ExitStatus(exit_code=3))
        raise DumpFailed("it is gone")

    scene.saver.saves = [end]
    scene.notice()
    assert scene.life.run().exit_code == 3
    assert scene.names == ["notice", "dumping"]


def test_a_notice_taken_back_calls_the_dump_off(scene: Scene) -> None:
    scene.saver.saves = [until_called_off]
    scene.when["dumping"] = lambda: scene.notice("aws", kind=NoticeKind.CANCELLED)
    scene.when["notice_cancelled"] = scene.session.end
    scene.notice("aws", 120.0)
    assert scene.life.run().exit_code == 0
    assert scene.names == ["notice", "dumping", "notice_cancelled"]
    assert scene.events[-1].state == "running"


def test_a_new_notice_while_the_old_dump_is_being_called_off(scene: Scene) -> None:
    def both() -> None:
        scene.notice("aws", kind=NoticeKind.CANCELLED)
        scene.notice("gcp", 30.0)

    scene.saver.saves = [until_called_off, saved]
    scene.when["dumping"] = lambda: (scene.when.clear(), both())
    scene.notice("aws", 120.0)
    assert scene.life.run().saved
    assert scene.names == ["notice", "dumping", "notice_cancelled", "notice", "dumping", "saved"]


def test_a_notice_taken_back_by_one_of_two(scene: Scene) -> None:
    scene.saver.saves = [until_called_off]
    scene.when["dumping"] = lambda: (scene.notice("gcp", 30.0), scene.notice("aws", 0.5))
    scene.when["dump_failed"] = lambda: scene.notice("gcp", kind=NoticeKind.CANCELLED)
    scene.notice("aws", 120.0)
    with pytest.raises(DumpFailed):
        scene.life.run()
    assert scene.names[:4] == ["notice", "dumping", "window_moved", "window_moved"]


def test_a_later_notice_shortens_the_dumps_deadline(scene: Scene) -> None:
    scene.saver.saves = [until_called_off]
    scene.when["dumping"] = lambda: scene.notice("gcp", 0.3)
    scene.notice("aws", 3600.0)
    with pytest.raises(DumpFailed, match="too late"):
        scene.life.run()
    assert scene.names == ["notice", "dumping", "window_moved", "dump_failed", "failed"]


def test_copies_are_made_when_they_are_due_and_told(scene: Scene) -> None:
    scene.saver.copies = [lambda _stop: {"copied_bytes": 23}]
    scene.when["copied"] = scene.session.end
    scene.life.run()
    assert scene.names == ["copying", "copied"]
    assert [event.state for event in scene.events] == ["copying", "running"]
    assert scene.events[-1].details["copied_bytes"] == 23


def test_a_copy_that_fails_costs_nothing(scene: Scene) -> None:
    def broken(_stop: threading.Event) -> dict[str, object]:
        raise SnaplibError("no room")

    scene.saver.copies = [broken]
    scene.when["copy_failed"] = scene.session.end
    assert scene.life.run().exit_code == 0
    assert scene.events[-1].state == "running"


def test_a_notice_stops_a_copy_before_the_dump_begins(scene: Scene) -> None:
    stopped = threading.Event()

    def long_copy(stop: threading.Event) -> dict[str, object]:
        assert stop.wait(60)
        stopped.set()
        return {}

    def save(deadline: Deadline) -> object:
        assert stopped.is_set()
        return saved(deadline)

    scene.saver.copies, scene.saver.saves = [long_copy], [save]
    scene.when["copying"] = scene.notice
    assert scene.life.run().saved
    assert scene.names == ["copying", "notice", "copied", "dumping", "saved"]


def test_the_tasks_end_stops_a_copy(scene: Scene) -> None:
    def long_copy(stop: threading.Event) -> dict[str, object]:
        assert stop.wait(60)
        return {}

    scene.saver.copies = [long_copy]
    scene.when["copying"] = scene.session.end
    assert scene.life.run().exit_code == 0


def test_hints_and_troubles_change_nothing(scene: Scene) -> None:
    scene.notice("aws", kind=NoticeKind.HINT, detail="rebalance")
    scene.notice("gcp", kind=NoticeKind.TROUBLE, detail="nobody there")
    scene.when["source_failed"] = scene.session.end
    scene.life.run()
    assert scene.names == ["hint", "source_failed"]
    assert scene.saver.hints == 1


def test_a_task_waits_for_its_turn_and_tells_once_who_is_first(scene: Scene) -> None:
    scene.turn.waits = [Waiting(("a", "b"), 7.0)] * 3 + [Waiting(("b",), 1.0)]
    scene.saver.saves = [saved]
    scene.notice()
    assert scene.life.run().saved
    assert scene.names == ["notice", "waiting", "waiting", "dumping", "saved"]
    assert [one.details["ahead"] for one in scene.events[1:3]] == [2, 1]
    assert scene.turn.calls == ["noticed", "done", "leave"]


def test_a_task_whose_turn_does_not_come(scene: Scene) -> None:
    scene.turn.waits = [Waiting(("a",), None)] * 1000
    scene.notice(window_s=0.3)
    with pytest.raises(DumpFailed, match="other tasks of this node came first"):
        scene.life.run()
    assert scene.names == ["notice", "waiting", "failed"]


def test_a_turn_ends_with_a_dump_that_fails(scene: Scene) -> None:
    scene.saver.saves = [fails]
    scene.notice(window_s=0.3)
    with pytest.raises(DumpFailed):
        scene.life.run()
    assert scene.turn.calls == ["noticed", "done", "leave"]


def whole(snapshot_id: str) -> Snapshot:
    return Snapshot(
        id=snapshot_id,
        key="key",
        created_at="2026-11-28T00:00:00+00:00",
        snaplib_version="0",
        objects={},
        raw_bytes=0,
        stored_bytes=7,
        pages=0,
        timings={"frozen_s": 0.1},
    )


def test_snapshots_are_made_now_and_then_and_replace_each_other() -> None:
    scene = Scene(every_s=0.01)
    scene.saver.snapshots = [lambda _: whole("s1"), fails, lambda _: whole("s2"), until_called_off]
    scene.when["snapshot"] = lambda: scene.names.count("snapshot") == 2 and scene.notice()
    scene.saver.saves = [saved]
    assert scene.life.run().saved
    scene.close()
    told = [name for name in scene.names if name.startswith("snapshot")]
    assert told[:3] == ["snapshot", "snapshot_failed", "snapshot"]
    assert scene.removed == ["s1"]
    assert scene.events[-1].state == "saved"


def test_what_is_promised_is_told_first() -> None:
    scene = Scene(every_s=0.01)
    scene.saver.snapshots = [fails, lambda _: whole("s1")]
    scene.when["snapshot"] = scene.session.end
    scene.life.run()
    scene.close()
    assert scene.names == ["promise", "copying", "snapshot_failed", "copying", "snapshot"]
    assert scene.events[0].details == {"lost_s": 0.01, "by": "option"}
    assert scene.events[2].details["unsaved_s"] > 0


def test_a_snapshot_that_is_due_does_not_wait_for_a_copy() -> None:
    def long_copy(stop: threading.Event) -> dict[str, object]:
        assert stop.wait(60)
        return {}

    scene = Scene(every_s=0.2)
    scene.saver.copies = [long_copy]
    scene.saver.snapshots = [lambda _: whole("s1")]
    scene.when["snapshot"] = scene.session.end
    scene.life.run()
    scene.close()
    assert scene.names == ["promise", "copying", "copied", "copying", "snapshot"]


def test_a_mistake_in_a_dump_does_not_keep_the_next_one_from_being_tried(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("snaplib.supervise.tries._RETRY_AFTER_S", (0.0,))

    def mistaken(_deadline: Deadline) -> object:
        raise KeyError("oops")

    scene.saver.saves = [mistaken, saved]
    scene.notice()
    assert scene.life.run().saved
    assert "KeyError" in scene.events[2].details["reason"]


def test_a_mistake_in_a_copy_costs_nothing(scene: Scene) -> None:
    def mistaken(_stop: threading.Event) -> dict[str, object]:
        raise ZeroDivisionError

    scene.saver.copies = [mistaken]
    scene.when["copy_failed"] = scene.session.end
    assert scene.life.run().exit_code == 0


def test_no_plan_is_told_in_a_window(scene: Scene) -> None:
    """What is found out meanwhile is told once the notice is taken back, the newest of it."""

    def plans() -> None:
        for strategy in ("full", "warm"):
            scene.inbox.tell("plan", strategy=strategy)
        scene.inbox.tell("obstacle", code="x")
        scene.notice("aws", kind=NoticeKind.CANCELLED)

    scene.saver.saves = [until_called_off]
    scene.when["dumping"] = plans
    scene.when["plan"] = scene.session.end
    scene.notice("aws", 120.0)
    assert scene.life.run().exit_code == 0
    assert scene.names == ["notice", "dumping", "obstacle", "notice_cancelled", "plan"]
    assert scene.events[-1].details == {"strategy": "warm"}


@pytest.mark.parametrize("save", [saved, fails])
def test_nothing_is_told_after_the_end(scene: Scene, save: Callable[[Deadline], object]) -> None:
    def tell() -> None:
        scene.inbox.tell("plan", strategy="full")
        scene.inbox.tell("obstacle", code="x")

    scene.saver.saves = [save]
    scene.when["saved"] = scene.when["failed"] = tell
    scene.notice(window_s=0.3)
    with contextlib.suppress(DumpFailed):
        scene.life.run()
    assert scene.names[-1] in ("saved", "failed")
    assert "plan" not in scene.names


def test_what_was_found_out_before_the_task_ended_is_told(scene: Scene) -> None:
    scene.inbox.tell("plan", strategy="full")
    scene.session.end()
    scene.life.run()
    assert scene.names == ["plan"]


@pytest.fixture
def hangs(monkeypatch: pytest.MonkeyPatch) -> Iterator[threading.Event]:
    """What hangs waits for this; and not much patience with it."""
    monkeypatch.setattr("snaplib.supervise.saving._OVERDUE_S", 0.2)
    monkeypatch.setattr("snaplib.supervise.life._GRACE_S", 0.1)
    monkeypatch.setattr("snaplib.supervise.life._HURRY_S", 0.1)
    event = threading.Event()
    yield event
    event.set()
    # Whom they tell that they are done is still there.
    for thread in threading.enumerate():
        if thread.name in ("snaplib-dump", "snaplib-copy"):
            thread.join(60)


def test_a_dump_that_does_not_come_to_its_end(scene: Scene, hangs: threading.Event) -> None:
    scene.saver.saves = [lambda _deadline: hangs.wait()]
    scene.notice(window_s=0.3)
    with pytest.raises(DumpFailed, match="does not come to its end"):
        scene.life.run()
    assert scene.names == ["notice", "dumping", "failed"]
    # The saver is still in use.
    assert not scene.saver.closed
    assert scene.limit is None


def test_a_copy_that_does_not_come_to_its_end(scene: Scene, hangs: threading.Event) -> None:
    scene.saver.copies = [lambda _stop: {"done": hangs.wait()}]
    scene.when["copying"] = lambda: scene.notice(window_s=0.3)
    with pytest.raises(DumpFailed, match="does not come to its end"):
        scene.life.run()
    assert scene.names == ["copying", "notice", "failed"]


def test_a_dump_that_is_called_off_and_does_not_end(scene: Scene, hangs: threading.Event) -> None:
    scene.saver.saves = [lambda _deadline: hangs.wait()]
    scene.when["dumping"] = lambda: scene.notice("aws", kind=NoticeKind.CANCELLED)
    scene.notice("aws", 3600.0)
    with pytest.raises(DumpFailed, match="does not come to its end"):
        scene.life.run()
    assert scene.names == ["notice", "dumping", "failed"]
