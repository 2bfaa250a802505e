"""The proof that CRIU leaves out what did not change, and nothing else: by the preload library, or by soft-dirty bits.

What the library does rests on how one CRIU asks one kernel, so each pair of them is tried before it is trusted: a
small child is write-protected and its memory copied, it changes some of it in the ways that matter, and CRIU dumps it.
Every page that CRIU leaves out must be as it was in the copy.  Where the kernel has soft-dirty bits the same is asked
of those, and of CRIU without the library.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Protocol

import attrs
import blake3

from snaplib.checkpoint.deadline import Deadline
from snaplib.checkpoint.pageserver import PageServer
from snaplib.checkpoint.watchdog import Watchdog
from snaplib.criu import (
    Criu,
    CriuError,
    Notification,
    Shim,
    Swrk,
    failure_reasons,
    log_tail,
    prepare_shim,
    write_bare_parent,
)
from snaplib.criu.pagemap import PAGE_BYTES
from snaplib.errors import ShimUnusable, SnaplibError
from snaplib.kernel.pagemap import Category, Pagemap
from snaplib.runtime import cache_dir, scratch_dir
from snaplib.store import Space
from snaplib.task import Task
from snaplib.track import SoftDirty, Tracker, WriteProtect

__all__ = ["prove_shim", "prove_soft_dirty", "trust_soft_dirty", "trusted_shim"]

#: Raise it when the proof asks for more: what was proven before is proven anew then.
_PROOF = 1

_DEADLINE_S = 120.0
_LOG = "dump.log"

#: Pages that the child writes in `armed`, and those that it drops in `copied`.
_WRITTEN = (5, 6, 7, 11, 30, 31, 47)
_DROPPED = (3, 4)
#: CRIU itself may write to some pages of the child.
_SPURIOUS_PAGES = 3

#: Prints where its memory is, changes it when it is told to, and waits.
_CHILD = """
import ctypes, mmap, sys

def mapped(*arguments, **options):
    memory = mmap.mmap(*arguments, **options)
    memories.append(memory)
    return memory, ctypes.addressof(ctypes.c_char.from_buffer(memory))

memories = []
private = mmap.MAP_PRIVATE
page = mmap.PAGESIZE
armed, armed_address = mapped(-1, 64 * page, flags=private | mmap.MAP_ANONYMOUS)
with open(sys.executable, "rb") as file:
    copied, copied_address = mapped(
        file.fileno(), 8 * page, flags=private, prot=mmap.PROT_READ | mmap.PROT_WRITE
    )
for number in range(64):
    armed[number * page] = 1
for number in range(8):
    copied[number * page] = 1 + copied[number * page] % 255
print(armed_address, copied_address, flush=True)
sys.stdin.readline()
for number in WRITTEN:
    armed[number * page + 9] = 2
for number in DROPPED:
    copied.madvise(mmap.MADV_DONTNEED, number * page, page)
new, new_address = mapped(-1, 16 * page, flags=private | mmap.MAP_ANONYMOUS)
for number in range(16):
    new[number * page] = 3
print(new_address, flush=True)
sys.stdin.readline()
"""


def trusted_shim(criu: Criu) -> Shim:
    """Return the preload library for a CRIU with which it was proven to work on this kernel.

    The first time that takes about a second; a success is remembered in the cache folder, a failure in this process.

    Args:
        criu: The binary.

    Raises:
        ShimUnusable: It cannot be built, or the proof failed.
    """
    shim = prepare_shim(criu)
    _trust(criu, shim)
    return shim


def trust_soft_dirty(criu: Criu) -> None:
    """Return if CRIU was proven to work with this kernel's soft-dirty bits; tried and remembered as for `trusted_shim`.

    Args:
        criu: The binary.

    Raises:
        ShimUnusable: The proof failed.
    """
    _trust(criu, None)


def _trust(criu: Criu, shim: Shim | None) -> None:
    found = criu.path.stat()
    system = os.uname()
    pair = (
        *(_PROOF, shim.digest if shim else "soft-dirty", str(criu.path), criu.version_text),
        *(found.st_size, found.st_mtime_ns, system.release, system.version, system.machine),
    )
    problem = _problem(criu, shim, json.dumps(pair))
    if problem:
        raise ShimUnusable(
            f"CRIU cannot be trusted to leave out only what did not change: {problem}"
        )


@cache
def _problem(criu: Criu, shim: Shim | None, pair: str) -> str:
    """Return what is wrong; empty if nothing is."""
    name = blake3.blake3(pair.encode()).hexdigest(10)
    remembered: Path | None = None
    with contextlib.suppress(SnaplibError):
        remembered = cache_dir("criu") / f"proven-{name}"
        if remembered.exists():
            return ""
    try:
        if shim is None:
            prove_soft_dirty(criu)
        else:
            prove_shim(criu, shim)
    except (SnaplibError, OSError) as error:
        return str(getattr(error, "message", error)) or type(error).__name__
    if remembered is not None:
        with contextlib.suppress(OSError):
            remembered.write_text(pair + "\n")
    return ""


#: The kind of `Space` that is a process's memory.
_PROCESS = 1


@attrs.define
class _Received:
    """A page sink that keeps no bytes: which pages came, and which were left out."""

    came: set[int] = attrs.field(factory=set)
    left_out: set[int] = attrs.field(factory=set)
    _room: bytearray = attrs.field(factory=lambda: bytearray(1 << 20))

    def run(self, space: Space, vaddr: int, pages: int, _flags: int) -> None:
        if space.kind == _PROCESS:
            self.came.update(_addresses(vaddr, pages))

    def hole(self, space: Space, vaddr: int, pages: int, _flags: int) -> None:
        if space.kind == _PROCESS:
            self.left_out.update(_addresses(vaddr, pages))

    def reserve(self, limit: int) -> memoryview:
        return memoryview(self._room)[:limit]

    def filled(self, _count: int) -> None:
        return


def _addresses(vaddr: int, pages: int) -> range:
    return range(vaddr, vaddr + pages * PAGE_BYTES, PAGE_BYTES)


def prove_shim(criu: Criu, shim: Shim) -> str:
    """Dump a small child incrementally, and compare what was left out with a copy made before.

    Args:
        criu: The binary.
        shim: The library to preload.

    Returns:
        What was found, in words.

    Raises:
        ShimUnusable: CRIU left out a page that had changed, or one that nobody watches, or sent them all.
        SnaplibError: It could not be tried.
    """
    return _prove(criu, WriteProtect, shim.environment())


def prove_soft_dirty(criu: Criu) -> str:
    """The same, of CRIU as it is and the kernel's soft-dirty bits.

    Args:
        criu: The binary.

    Returns:
        What was found, in words.

    Raises:
        ShimUnusable: As for `prove_shim`.
        SnaplibError: It could not be tried.
    """
    return _prove(criu, SoftDirty, {})


class _Track(Protocol):
    def __call__(self, task: Task, *, freeze_deadline_s: float) -> Tracker: ...


def _prove(criu: Criu, track: _Track, environment: Mapping[str, str]) -> str:
    child = _CHILD.replace("WRITTEN", repr(_WRITTEN)).replace("DROPPED", repr(_DROPPED))
    with contextlib.ExitStack() as stack:
        process = subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", child],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
            text=True,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        stack.callback(process.stdout.close)
        stack.callback(process.stdin.close)
        stack.callback(process.wait)
        stack.callback(process.kill)
        armed, copied = _numbers(process.stdout.readline(), 2)
        task = stack.enter_context(Task.attach(process.pid))
        # The child is ours: on a slow or busy machine it may stand still for as long as it takes to arm all of it.
        tracker = stack.enter_context(track(task, freeze_deadline_s=_DEADLINE_S))
        tracker.arm()
        before = _memory_of(task)
        process.stdin.write("\n")
        process.stdin.flush()
        (new,) = _numbers(process.stdout.readline(), 1)
        received, changed = _dump(criu, environment, process.pid, before)
        scan = tracker.scan(rearm=False)
        dirty = {
            page
            for found in scan.processes
            for run in found.dirty
            for page in _addresses(int(run["start"]), int(run["pages"]))
        }
    _judge(received, changed, dirty, armed=armed, copied=copied, new=new)
    return f"{len(received.left_out)} pages left out, {len(received.came)} sent"


def _numbers(line: str, count: int) -> list[int]:
    numbers = [int(word) for word in line.split()]
    if len(numbers) != count:
        raise ShimUnusable("the child that was to be dumped has ended")
    return numbers


def _memory_of(task: Task) -> dict[int, bytes]:
    """Return a copy of the pages that CRIU may leave out: the process's own, and the vdso."""
    pages: dict[int, bytes] = {}
    with (
        Pagemap(f"/proc/{task.pid}/pagemap") as pagemap,
        Path(f"/proc/{task.pid}/mem").open("rb", buffering=0) as memory,
    ):
        for mapping in task.procfs.maps(task.pid):
            if mapping.path == "[vdso]":
                ranges = [(mapping.start, mapping.end)]
            elif mapping.path.startswith("[v"):
                continue
            else:
                found = pagemap.scan(
                    mapping.start,
                    mapping.end,
                    lacking=Category.FILE,
                    any_of=Category.PRESENT | Category.SWAPPED,
                )
                ranges = [(start, end) for start, end, _ in found.tolist()]
            for start, end in ranges:
                content = os.pread(memory.fileno(), end - start, start)
                for at in range(0, len(content), PAGE_BYTES):
                    pages[start + at] = content[at : at + PAGE_BYTES]
    return pages


def _dump(
    criu: Criu, environment: Mapping[str, str], pid: int, before: dict[int, bytes]
) -> tuple[_Received, list[int]]:
    """Dump a process; return what came, and which pages were left out though they had changed."""
    received = _Received()
    changed: list[int] = []

    def compare(notification: Notification) -> None:
        if notification.stage == "post-dump":
            server.finish(_DEADLINE_S)
            with Path(f"/proc/{pid}/mem").open("rb", buffering=0) as memory:
                for page in sorted(received.left_out):
                    content = os.pread(memory.fileno(), PAGE_BYTES, page)
                    if before.get(page) != content:
                        changed.append(page)

    with scratch_dir("proof") as images, contextlib.ExitStack() as stack:
        server = PageServer(received, has_parent=True)
        stack.callback(server.close)
        page_fd = server.criu_end.fileno()
        swrk = Swrk(criu, pass_fds=[page_fd], environment=environment)
        stack.callback(swrk.finish, _DEADLINE_S)
        server.criu_end.close()
        server.start()
        with Watchdog(Deadline(_DEADLINE_S), [server.hang_up, swrk.hang_up]):
            try:
                swrk.request(_request(swrk.messages, images, pid, page_fd), on_notify=compare)
            except CriuError as error:
                reasons = failure_reasons(log_tail(images / _LOG, lines=2000))
                raise ShimUnusable(
                    f"a trial dump failed: {reasons[0] if reasons else error}"
                ) from error
    return received, changed


def _request(messages: Any, images: Path, pid: int, page_fd: int) -> Any:
    request = messages.criu_req(type=messages.DUMP)
    opts = request.opts
    opts.images_dir_fd = -1
    opts.images_dir = str(images)
    opts.log_file = _LOG
    opts.log_level = 2
    opts.pid = pid
    opts.leave_running = True
    opts.notify_scripts = True
    opts.ps.fd = page_fd
    opts.track_mem = True
    opts.parent_img = write_bare_parent(images)
    opts.manage_cgroups_mode = messages.IGNORE
    return request


def _judge(
    received: _Received,
    changed: list[int],
    dirty: set[int],
    *,
    armed: int,
    copied: int,
    new: int,
) -> None:
    """Raise what speaks against it.

    Args:
        received: What the dump sent, and left out.
        changed: What it left out though it had changed.
        dirty: What has changed by the word of our own tracker.
        armed: Address of memory that was written in part.
        copied: Address of memory of a file that was dropped in part.
        new: Address of memory that nobody watched.
    """
    if changed:
        raise ShimUnusable(
            f"of {len(received.left_out)} pages that a trial dump left out {len(changed)} had changed"
        )
    written = {armed + number * PAGE_BYTES for number in _WRITTEN}
    dropped = {copied + number * PAGE_BYTES for number in _DROPPED}
    unknown = set(_addresses(new, 16))
    if lost := (written | unknown) - received.came:
        raise ShimUnusable(f"{len(lost)} pages that had changed were missing from a trial dump")
    if dropped & received.left_out:
        raise ShimUnusable("pages of a file that had been dropped were left out of a trial dump")
    needless = received.came.intersection(_addresses(armed, 64)) - written
    if len(needless) > _SPURIOUS_PAGES:
        raise ShimUnusable(
            f"{len(needless)} pages that had not changed were sent in a trial dump; the tracker took"
            f" {len(needless & dirty)} of them for changed"
        )
