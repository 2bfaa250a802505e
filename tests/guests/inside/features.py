"""One task that holds many features that are dumped and restored, each in a process of its own."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from snaplib.task import Task
from tests.kernel.test_dump_restore import FEATURES, NOWHERE
from tests.workloads.features import ask, verdict_of

__all__ = ["FEATURES", "LEFT", "NAMES", "NOWHERE", "all_work", "ended", "wait_for"]

#: Those that have something of the kernel's of their own.
NAMES = (
    *(
        "threads",
        "children",
        "zombie",
        "files",
        "deleted-file",
        "unix-server",
        "tcp-pair",
        "inotify",
    ),
    *("event-descriptors", "shared-memory", "posix-locks", "terminal-pair", "stopped-child"),
    "random-bytes",
)

#: The same path in all guests: files are taken by reference.
LEFT = Path("/srv/left")


def ready(name: str) -> Path:
    """The file in which a feature says that it is there."""
    return LEFT / name / "ready"


def wait_for(names: Iterable[str], deadline_s: float = 300.0) -> None:
    """Wait until all features are there."""
    give_up = time.monotonic() + deadline_s
    for name in names:
        while not ready(name).exists():
            assert time.monotonic() < give_up, name
            time.sleep(0.05)
        assert ready(name).read_text() == "ready", name


def all_work() -> dict[str, str]:
    """Have each feature check itself; return what those say that do not work."""
    for name in NAMES:
        ask(ready(name))
    verdicts = {name: verdict_of(ready(name)) for name in NAMES}
    return {name: verdict for name, verdict in verdicts.items() if verdict != "OK"}


@contextlib.contextmanager
def ended(task: Task) -> Iterator[Task]:
    """End a task that was restored, whatever happens."""
    session = task.session
    assert session is not None
    try:
        assert task.alive()
        yield task
    finally:
        session.terminate()
        with contextlib.suppress(TimeoutError):
            session.wait(30)
        session.cleanup()
