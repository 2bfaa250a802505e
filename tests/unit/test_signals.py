"""Signals that are no notice: the task's, where there is one."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from snaplib.cli import run

NUMBERS = (*run.NOTICES, *run._PASSED_ON, signal.SIGWINCH, signal.SIGCONT)


class FakeSupervisor:
    """Hears signals, and passes them on once there is a task."""

    def __init__(self, *, has_task: bool) -> None:
        self.has_task = has_task
        self.heard: list[object] = []

    def signal(self, number: int) -> bool:
        self.heard.append(number)
        return self.has_task

    def notice(self, *, source: str) -> None:
        self.heard.append(source)

    def refresh_terminal(self) -> None:
        self.heard.append("terminal")


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in NUMBERS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def test_each_means_something() -> None:
    supervisor = FakeSupervisor(has_task=True)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    run.obey_signals(supervisor)  # type: ignore[arg-type]
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGWINCH):
        os.kill(os.getpid(), number)
    assert supervisor.heard == ["signal", signal.SIGINT, signal.SIGHUP, "terminal"]


def test_before_there_is_a_task_they_end_us(monkeypatch: pytest.MonkeyPatch) -> None:
    supervisor = FakeSupervisor(has_task=False)
    run.obey_signals(supervisor)  # type: ignore[arg-type]
    sent: list[tuple[int, object]] = []
    kill = os.kill
    monkeypatch.setattr(os, "kill", lambda _pid, one: sent.append((one, signal.getsignal(one))))
    kill(os.getpid(), signal.SIGINT)
    assert sent == [(signal.SIGINT, signal.SIG_DFL)]


def test_nohup_is_heeded() -> None:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    run.obey_signals(FakeSupervisor(has_task=True))  # type: ignore[arg-type]
    assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
