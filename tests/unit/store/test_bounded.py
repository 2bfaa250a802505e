"""A store that does not answer: whoever has a limit goes on, and what was given up does no harm when it is done."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import attrs
import pytest

from snaplib.errors import StoreUnreachable
from snaplib.store import RunSet, Store
from snaplib.store.bounded import BoundedBackend
from snaplib.store.grace import Grace
from snaplib.testing.memories import SMALL, SampleMemory, check
from snaplib.testing.stores import HaltingBackend, MemoryBackend

PATIENCE_S = 60.0


def eventually(condition: Callable[[], bool], what: str) -> None:
    """Wait for a condition."""
    ends_s = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < ends_s, f"waited for {what}"
        time.sleep(0.002)


class Halted:
    """A place that can come to a halt, a backend that does not wait for it for ever, and threads for who waits."""

    def __init__(self) -> None:
        self.memory = MemoryBackend()
        self.place = HaltingBackend(self.memory)
        self.backend = BoundedBackend(self.place, grace_s=0.05)
        self._pool = ThreadPoolExecutor(4)
        self.beside = self._pool.submit

    def close(self) -> None:
        self.place.go_on()
        self._pool.shutdown()


@pytest.fixture
def halted() -> Iterator[Halted]:
    made = Halted()
    yield made
    made.close()


def test_without_a_limit_it_is_waited_for(halted: Halted) -> None:
    halted.place.halt()
    put = halted.beside(halted.backend.put_new, "a", b"1")
    eventually(lambda: halted.place.waiting == 1, "the put to wait")
    halted.place.go_on()
    put.result(PATIENCE_S)
    assert halted.backend.get("a") == b"1"


def test_what_is_under_way_when_a_limit_comes_is_given_up(halted: Halted) -> None:
    halted.place.halt()
    put = halted.beside(halted.backend.put_new, "a", b"1")
    eventually(lambda: halted.place.waiting == 1, "the put to wait")
    halted.backend.limit_by(lambda: 0.0)
    with pytest.raises(StoreUnreachable, match="has not answered"):
        put.result(PATIENCE_S)
    # It is done later all the same.
    halted.backend.limit_by(None)
    halted.place.go_on()
    eventually(lambda: "a" in halted.memory.objects, "the put")
    assert halted.backend.get("a") == b"1"


@pytest.mark.parametrize(
    "call",
    [
        lambda backend: backend.create("a"),
        lambda backend: backend.open("a"),
        lambda backend: backend.get("a"),
        lambda backend: list(backend.names("")),
        lambda backend: backend.delete("a"),
        lambda backend: backend.delete_folder("a"),
        lambda backend: backend.hold("a"),
        lambda backend: backend.delete_abandoned("a", bool),
    ],
)
def test_everything_is_given_up(halted: Halted, call: Callable[[BoundedBackend], object]) -> None:
    halted.place.halt(wholly=True)
    halted.backend.limit_by(lambda: 0.0)
    with pytest.raises(StoreUnreachable):
        call(halted.backend)


def test_what_is_made_too_late_is_taken_back(halted: Halted) -> None:
    halted.place.halt(wholly=True)
    halted.backend.limit_by(lambda: 0.0)
    for call in (lambda: halted.backend.create("a"), lambda: halted.backend.hold("b")):
        with pytest.raises(StoreUnreachable):
            call()
    made = threading.Event()
    create = halted.memory.create

    def creates(name: str, *, bulk: bool = False) -> object:
        made.set()
        return create(name, bulk=bulk)

    halted.memory.create = creates  # type: ignore[method-assign,assignment]
    halted.place.go_on()
    assert made.wait(PATIENCE_S)
    eventually(lambda: not halted.memory.objects and not halted.memory._held, "both to be gone")


def test_an_object_is_not_closed_while_something_still_writes(halted: Halted) -> None:
    writer = halted.backend.create("a", bulk=True)
    halted.place.halt()
    halted.backend.limit_by(lambda: 0.0)
    with pytest.raises(StoreUnreachable):
        writer.append(b"late")
    halted.backend.limit_by(None)
    # Not even where nobody has a limit any more.
    with pytest.raises(StoreUnreachable, match="still being written"):
        writer.commit()
    writer.abort()
    assert "a" in halted.memory.objects
    halted.place.go_on()
    eventually(lambda: "a" not in halted.memory.objects, "the object to be gone")


def test_errors_are_those_of_the_place(halted: Halted) -> None:
    halted.backend.put_new("a", b"1")
    with pytest.raises(FileExistsError):
        halted.backend.put_new("a", b"2")
    with pytest.raises(FileNotFoundError):
        halted.backend.get("b")


def test_threads_end_with_those_that_call(halted: Halted) -> None:
    def helpers() -> int:
        return sum(one.name == "snaplib-call" for one in threading.enumerate())

    before = helpers()
    for number in range(23):
        caller = threading.Thread(target=halted.backend.put_new, args=(str(number), b""))
        caller.start()
        caller.join()
    eventually(lambda: helpers() <= before, "their helpers to end")


def test_a_limit_that_is_passed_for_a_moment_ends_nothing() -> None:
    now = [0.0]
    grace = Grace(lambda: now[0])
    assert not grace.is_over(lambda: 0.0, 1.0)
    now[0] = 0.9
    assert not grace.is_over(lambda: 0.0, 1.0)
    assert not grace.is_over(None, 1.0)
    now[0] = 1.5
    assert not grace.is_over(lambda: 0.0, 1.0)
    assert not grace.is_over(lambda: 7.0, 1.0)
    now[0] = 2.0
    assert not grace.is_over(lambda: 0.0, 1.0)
    now[0] = 3.0
    assert grace.is_over(lambda: 0.0, 1.0)


@pytest.mark.parametrize("halts_at", ["index", "segment-0004", "manifests"])
def test_a_snapshot_whose_last_puts_hang(
    halted: Halted, monkeypatch: pytest.MonkeyPatch, halts_at: str
) -> None:
    """It is given up, and what was copied and is whole is gone on with; unless the manifest may be there."""
    store = Store.over(halted.backend, create=True)
    memory = SampleMemory(store, pages=64, options=attrs.evolve(SMALL, codec="none"))
    memory.copy_ahead()
    memory.write(range(5, 25))
    create, put_new = halted.place.create, halted.place.put_new

    def creates(name: str, *, bulk: bool = False) -> object:
        if halts_at in name:
            halted.place.halt(wholly=True)
        return create(name, bulk=bulk)

    def puts(name: str, data: bytes) -> None:
        if halts_at in name:
            halted.place.halt(wholly=True)
        put_new(name, data)

    if "segment" not in halts_at:
        memory.copy_ahead()
    monkeypatch.setattr(halted.place, "create", creates)
    monkeypatch.setattr(halted.place, "put_new", puts)
    memory.write(range(30, 40))
    halted.backend.limit_by(lambda: 0.0)
    with pytest.raises(StoreUnreachable):
        memory.dump()
    monkeypatch.undo()
    if halts_at == "manifests":
        assert not memory.writer.open
        halted.backend.limit_by(None)
        halted.place.go_on()
        return
    assert memory.writer.open
    lost = memory.writer.retract()
    halted.place.go_on()
    halted.backend.limit_by(None)
    memory.changed |= {one for one in memory.content if memory.number(one) in numbers(lost)}
    memory.changed |= set(range(5, 40))
    memory.copy_ahead()
    snapshot, content = memory.dump()
    memory.writer.abort()
    check(store, snapshot.id, content)


def numbers(pages: RunSet) -> set[int]:
    """The numbers of a set of pages, one by one."""
    runs = zip(pages.begins.tolist(), pages.ends.tolist(), strict=True)
    return {one for begin, end in runs for one in range(begin, end)}


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")
def test_a_forked_process_has_threads_of_its_own() -> None:
    """Those of its parent do not come along, and would be waited for for ever."""
    backend = BoundedBackend(MemoryBackend())
    backend.put_new("a", b"1")
    pid = os.fork()
    if not pid:
        status = 1
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(int(PATIENCE_S))
            status = int(backend.get("a") != b"1")
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert backend.get("a") == b"1"
