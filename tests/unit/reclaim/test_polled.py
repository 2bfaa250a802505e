"""A source that is asked again and again: what is new is reported, and nothing twice."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from snaplib.errors import NoticeSourceFailed
from snaplib.reclaim import Notice, NoticeKind, PolledSource, Watchers


class Scripted(PolledSource):
    """Answers what the test puts into it."""

    name = "scripted"
    window_s = 60.0

    def __init__(self, clock) -> None:
        super().__init__(clock=clock, interval_s=0.01)
        self.answers: list[Notice] | Exception = []

    def ask(self) -> Iterable[Notice]:
        if isinstance(self.answers, Exception):
            raise self.answers
        return self.answers


def test_a_notice_is_reported_once_and_taken_back_once(clock, step) -> None:
    source = Scripted(clock)
    assert step(source) == []
    source.answers = [Notice("scripted", 50.0)]
    assert step(source) == [Notice("scripted", 50.0)]
    clock.now_s += 10
    source.answers = [Notice("scripted", 40.0)]
    assert step(source) == [], "it is the same end"
    source.answers = []
    assert step(source) == [Notice("scripted", kind=NoticeKind.CANCELLED)]
    assert step(source) == []


def test_an_earlier_end_is_reported_and_a_later_one_is_not(clock, step) -> None:
    source = Scripted(clock)
    source.answers = [Notice("scripted", 50.0)]
    step(source)
    source.answers = [Notice("scripted", 20.0), Notice("scripted", 50.0)]
    assert step(source) == [Notice("scripted", 20.0)]
    source.answers = [Notice("scripted", 90.0)]
    assert step(source) == []


def test_a_notice_without_a_time_runs_from_when_it_was_first_seen(clock, step) -> None:
    source = Scripted(clock)
    source.answers = [Notice("scripted")]
    assert step(source) == [Notice("scripted")]
    clock.now_s += 30
    assert step(source) == []


def test_a_hint_is_reported_once(clock, step) -> None:
    source = Scripted(clock)
    hint = Notice("scripted", kind=NoticeKind.HINT)
    source.answers = [hint]
    assert step(source) == [hint]
    assert step(source) == []
    source.answers = [hint, Notice("scripted", 30.0)]
    assert step(source) == [Notice("scripted", 30.0)]


def test_no_answer_is_told_once_and_takes_nothing_back(clock, step) -> None:
    source = Scripted(clock)
    source.answers = [Notice("scripted", 50.0)]
    step(source)
    source.answers = NoticeSourceFailed("nobody there")
    assert step(source) == [Notice("scripted", kind=NoticeKind.TROUBLE, detail="nobody there")]
    assert step(source) == []
    source.answers = [Notice("scripted", 50.0)]
    assert step(source) == []


class Broken:
    """Somebody's own source, with a mistake in it."""

    name = "broken"
    window_s = 10.0

    def watch(self, report, stop: threading.Event) -> None:  # noqa: ARG002 - the protocol's
        raise ZeroDivisionError("half a machine")

    def acknowledge(self) -> None:
        raise NoticeSourceFailed("nobody there")


class Own:
    """Somebody's own source, which has only the protocol's shape."""

    name = "own"
    window_s = 10.0

    def __init__(self) -> None:
        self.acknowledged = threading.Event()

    def watch(self, report, stop: threading.Event) -> None:
        report(Notice("own", 7.0))
        stop.wait()

    def acknowledge(self) -> None:
        self.acknowledged.set()


def test_several_sources_and_one_of_them_broken() -> None:
    heard: list[Notice] = []
    both = threading.Semaphore(0)

    def hear(notice: Notice) -> None:
        heard.append(notice)
        both.release()

    own = Own()
    watchers = Watchers([Broken(), own], hear)
    watchers.start()
    assert both.acquire(timeout=30)
    assert both.acquire(timeout=30)
    watchers.stop()
    watchers.acknowledge()

    assert own.acknowledged.is_set()
    assert {notice.source: notice.kind for notice in heard} == {
        "broken": NoticeKind.TROUBLE,
        "own": NoticeKind.RECLAIM,
    }
    assert next(one.detail for one in heard if one.source == "broken") == (
        "ZeroDivisionError: half a machine"
    )
