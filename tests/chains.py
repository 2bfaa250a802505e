"""Chains of incremental snapshots, and whether what is restored from them equals what was saved, byte by byte."""

from __future__ import annotations

import contextlib
import os
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import attrs
import numpy as np

from snaplib.checkpoint import dump, restore, restorerun
from snaplib.criu import Notification, Swrk
from snaplib.kernel import ProcFs
from snaplib.kernel.pagemap import Category, Pagemap
from snaplib.store import Snapshot, Store
from snaplib.task import Task
from snaplib.track import PAGE_BYTES, MemoryKind
from snaplib.track.areas import areas_of
from snaplib.warm import WarmCopy

_PAGE_WORDS = PAGE_BYTES // 8
#: The area of restartable sequences (struct rseq of linux/rseq.h), which the kernel writes itself.
_RSEQ_WORDS = 4
_NOWHERE = {"stdin": "/dev/null", "stdout": "/dev/null", "stderr": "/dev/null"}


@attrs.frozen(eq=False)
class Memory:
    """All of a process's memory.

    Attributes:
        addresses: Of its pages, ascending: uint64, shape (n,).
        words: What they hold: uint64, shape (n, 512).
    """

    addresses: np.ndarray
    words: np.ndarray


def memory_of(pid: int) -> Memory:
    """Read the memory of a process that stands still; anonymous pages that were never touched are left out."""
    addresses, words = [], []
    descriptor = os.open(f"/proc/{pid}/mem", os.O_RDONLY)
    try:
        with Pagemap(f"/proc/{pid}/pagemap") as pagemap:
            for area in areas_of(ProcFs().maps(pid)):
                ranges = [(area.start, area.end)]
                if area.kind is MemoryKind.PRIVATE:
                    there = Category.PRESENT | Category.SWAPPED
                    found = pagemap.scan(area.start, area.end, any_of=there)
                    ranges = [(start, end) for start, end, _ in found.tolist()]
                for start, end in ranges:
                    content = _read(descriptor, start, end)
                    words.append(content)
                    first = np.uint64(start)
                    numbers = np.arange(len(content), dtype=np.uint64)
                    addresses.append(first + numbers * np.uint64(PAGE_BYTES))
    finally:
        os.close(descriptor)
    return Memory(np.concatenate(addresses), np.concatenate(words))


def _read(descriptor: int, start: int, end: int) -> np.ndarray:
    """Read pages; those that cannot be read are zeros."""
    content = bytearray(end - start)
    at = 0
    while at < len(content):
        try:
            got = os.preadv(descriptor, [memoryview(content)[at:]], start + at)
        except OSError:
            got = 0
        at += got or PAGE_BYTES
    return np.frombuffer(content, np.uint64).reshape(-1, _PAGE_WORDS)


def differences(saved: Memory, restored: Memory) -> list[str]:
    """Return the pages of what was restored that are not as they were; a page that is not there holds zeros."""
    addresses = np.union1d(saved.addresses, restored.addresses)
    found = []
    before, after = _all_of(saved, addresses), _all_of(restored, addresses)
    for index in np.flatnonzero((before != after).any(axis=1)).tolist():
        words = np.flatnonzero(before[index] != after[index])
        rseq = words[0] // _RSEQ_WORDS == words[-1] // _RSEQ_WORDS
        if not (rseq and after[index][words].max() < 1 << 44):
            found.append(f"{int(addresses[index]):#x}: {words.size} words from {int(words[0])}")
    return found


def _all_of(memory: Memory, addresses: np.ndarray) -> np.ndarray:
    words = np.zeros((addresses.size, _PAGE_WORDS), np.uint64)
    words[np.searchsorted(addresses, memory.addresses)] = memory.words
    return words


def _in_namespace_of(init: int) -> list[int]:
    """Return all processes in the PID namespace of a process, which are not all of its tree."""
    found = []
    wanted = Path(f"/proc/{init}/ns/pid").readlink()
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit() and (entry / "ns/pid").readlink() == wanted:
                found.append(int(entry.name))
    return found


def _memories(pids: Iterable[int]) -> dict[int, Memory]:
    """Return the memory of each process, by its pid in its own namespace."""
    procfs, found = ProcFs(), {}
    for pid in pids:
        with contextlib.suppress(ProcessLookupError, FileNotFoundError):
            if not procfs.stat(pid).zombie:
                found[procfs.status(pid).ns_pids[-1]] = memory_of(pid)
    return found


@attrs.frozen(eq=False)
class Level:
    """One snapshot of a chain, and what the task held at that moment."""

    snapshot: Snapshot
    memory: dict[int, Memory]


def take(task: Task, store: Store, warm: WarmCopy | None, *, leave_running: bool = True) -> Level:
    """Take a snapshot, and read the task's memory while it stands still for it."""
    memory: dict[int, Memory] = {}

    def look(stage: str, _bytes: float) -> None:
        if stage == "full":
            memory.clear()
        if stage == "dumped":
            memory.update(_memories(ProcFs().tree(task.pid)))

    snapshot = dump(task, store, leave_running=leave_running, warm=warm, progress=look)
    return Level(snapshot, memory)


def restored_differences(store: Store, level: Level, monkeypatch: Any) -> list[str]:
    """Restore a snapshot, compare its memory before it runs on, and end it."""
    found: dict[int, Memory] = {}

    class Looking(Swrk):
        """Reads the memory when all is restored and nothing runs yet."""

        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            enter = options["enter"]
            self._init = int(enter[enter.index("-t") + 1])

        def request(self, message: Any, *, on_notify: Callable[[Notification], Any]) -> Any:
            def look(notification: Notification) -> Any:
                if notification.stage == "pre-resume":
                    found.update(_memories(_in_namespace_of(self._init)))
                return on_notify(notification)

            return super().request(message, on_notify=look)

    with monkeypatch.context() as patched:
        patched.setattr(restorerun, "Swrk", Looking)
        task = restore(store, level.snapshot.id, **_NOWHERE)
    end(task)
    told = []
    for ns_pid, saved in level.memory.items():
        if ns_pid not in found:
            told.append(f"pid {ns_pid} was not restored")
        else:
            told += [f"pid {ns_pid}: {one}" for one in differences(saved, found[ns_pid])]
    return told


def end(task: Task) -> None:
    """End a task with its session."""
    assert task.session is not None
    task.session.terminate()
    with contextlib.suppress(TimeoutError):
        task.session.wait(20)
    task.session.cleanup()


@contextlib.contextmanager
def launched(folder: Path, *command: object) -> Iterator[Task]:
    """Launch a program that says a line when it is ready."""
    output = folder / "output"
    task = Task.launch(
        [str(word) for word in command],
        stdin="/dev/null",
        stdout=str(output),
        stderr=str(folder / "errors"),
        cwd=str(folder),
    )
    try:
        give_up = time.monotonic() + 60
        while not (output.exists() and output.stat().st_size):
            assert task.alive(), (folder / "errors").read_text()
            assert time.monotonic() < give_up, "the program does not start"
            time.sleep(0.01)
        yield task
    finally:
        end(task)


@attrs.define
class Chain:
    """One chain.

    Attributes:
        levels: Its snapshots, the oldest first.
        wrong: What differed after a restore.
        full: Why snapshots were not incremental, where one was not.
        restored: How many were restored.
        compared_pages: Of how many pages, as they were saved.
    """

    levels: list[Level] = attrs.field(factory=list)
    wrong: list[str] = attrs.field(factory=list)
    full: list[str] = attrs.field(factory=list)
    restored: int = 0
    compared_pages: int = 0


def run_chain(
    task: Task, store: Store, depth: int, chance: random.Random, monkeypatch: Any
) -> Chain:
    """Take a chain of snapshots of a running task, and restore the last and an earlier one.

    Args:
        task: It goes on changing its memory.
        store: Where to.
        depth: How many snapshots.
        chance: Chooses how many rounds there are before each, and how long it waits.
        monkeypatch: Of pytest.
    """
    chain = Chain()
    with WarmCopy(task, store) as warm:
        for _ in range(depth):
            for _ in range(chance.randrange(1, 4)):
                time.sleep(chance.random() * 0.05)
                stop = threading.Event()
                if chance.random() < 0.2:
                    threading.Timer(chance.random() * 0.05, stop.set).start()
                warm.copy(stop)
            time.sleep(chance.random() * 0.02)
            chain.levels.append(take(task, store, warm))
            why = chain.levels[-1].snapshot.extra.get("full_because")
            if why:
                chain.full.append(why)
    chosen = {depth - 1, chance.randrange(depth)}
    for number in sorted(chosen):
        level = chain.levels[number]
        wrong = restored_differences(store, level, monkeypatch)
        chain.restored += 1
        chain.compared_pages += sum(one.addresses.size for one in level.memory.values())
        chain.wrong += [f"level {number + 1} of {depth}: {one}" for one in wrong]
    return chain
