"""The page server: takes a task's pages from CRIU over a socket and hands them to the store, with no file between.

CRIU connects nowhere: one end of a unix socketpair is given to it as ``opts.ps.fd``.  It splices pages out of the
frozen task into the socket; here they are read straight into the frame buffer of the page log.

The protocol (CRIU >= 4.2, little endian, criu/page-xfer.c) has a 32-byte header ``u32 command, u32 padding,
u64 pages, u64 vaddr, u64 destination``.  The low 16 bits of the command say what comes, the high 16 bits carry PE_*
flags; the destination is ``id << 8 | kind``, kind 1 a process, 2 a shared memory.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from typing import Protocol

from snaplib.criu.pagemap import PAGE_BYTES, PE_PARENT, PE_PRESENT
from snaplib.store import Space

__all__ = ["PageServer", "PageSink"]

_HEADER = struct.Struct("<IIQQQ")

_ADD, _HOLE, _OPEN, _OPEN2, _PARENT, _ADD_F = 1, 2, 3, 4, 5, 6
_CLOSE, _FORCE_CLOSE = 0x1023, 0x1024

#: The kind of a destination that is a process's memory.
_TASK = 1

#: What the kernel may hold between CRIU and us; CRIU splices page references, so this costs no copy.
_SOCKET_BUFFER_BYTES = 4 << 20
#: Not in Python's socket module (Linux: include/uapi/asm-generic/socket.h).
_SO_SNDBUFFORCE = 32


class PageSink(Protocol):
    """Where pages go: `snaplib.store.PageLogWriter`, or a fake."""

    def run(self, space: Space, vaddr: int, pages: int, flags: int) -> None:
        """Declare where the next ``pages`` pages belong."""

    def hole(self, space: Space, vaddr: int, pages: int, flags: int) -> None:
        """Declare pages that come without bytes."""

    def reserve(self, limit: int) -> memoryview:
        """Give room for at most ``limit`` of the declared bytes."""

    def filled(self, count: int) -> None:
        """Say that ``count`` bytes were put into what was reserved."""


class PageServer:
    """Serves one dump in a thread of its own.

    Args:
        sink: Where the pages go.
        has_parent: Whether CRIU may leave out pages that did not change; they come as holes.

    Attributes:
        criu_end: The socket to hand to CRIU; close ours once CRIU has it.
        page_bytes: How many bytes of pages have come so far.
        runs: How many runs of pages have come so far.
        receiving_s: Seconds in which pages were under way; in the others CRIU looked for some.
    """

    def __init__(self, sink: PageSink, *, has_parent: bool = False) -> None:
        self._sink = sink
        self._has_parent = has_parent
        self._ours, self.criu_end = socket.socketpair()
        # FORCE needs CAP_NET_ADMIN; with the default of 208 KiB CRIU and we take turns instead of overlapping.
        with contextlib.suppress(PermissionError):
            self.criu_end.setsockopt(socket.SOL_SOCKET, _SO_SNDBUFFORCE, _SOCKET_BUFFER_BYTES)
        self.page_bytes = 0
        self.runs = 0
        self.empty: set[Space] = set()
        self.receiving_s = 0.0
        self._failure: BaseException | None = None
        self._complete = False
        self._thread = threading.Thread(target=self._serve, name="snaplib-pages", daemon=True)

    def start(self) -> None:
        """Begin to serve."""
        self._thread.start()

    def finish(self, timeout_s: float) -> None:
        """Wait until CRIU has said that it sent everything.

        Args:
            timeout_s: How long to wait.

        Raises:
            TimeoutError: It has not by then.
            Exception: What went wrong while serving, for example StoreFull.
        """
        self._thread.join(timeout_s)
        if self._thread.is_alive():
            raise TimeoutError("the page server still waits for pages")
        if self._failure is not None:
            raise self._failure
        if not self._complete:
            raise EOFError("CRIU ended before it had sent all pages")

    @property
    def failure(self) -> BaseException | None:
        """What went wrong while serving, if anything has."""
        return self._failure

    def hang_up(self) -> None:
        """Break the connection from any thread: CRIU fails at once and the task runs on."""
        with contextlib.suppress(OSError):
            self._ours.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Free the sockets, and wait for the thread."""
        self.hang_up()
        self.criu_end.close()
        if self._thread.ident is not None:
            self._thread.join()
        self._ours.close()

    def _serve(self) -> None:
        try:
            self._complete = self._conversation()
        except BaseException as error:  # noqa: BLE001 - raised again by finish()
            # Kept for finish(): a thread has nobody else to tell.
            self._failure = error
        finally:
            if not self._complete:
                # A server that hangs leaves the task frozen for ever: CRIU has no timeout here.
                self.hang_up()

    def _conversation(self) -> bool:
        """Serve until CRIU says goodbye (true) or goes away (false)."""
        header = bytearray(_HEADER.size)
        while True:
            if not self._receive_all(memoryview(header)):
                return False
            command, _padding, pages, vaddr, destination = _HEADER.unpack(header)
            flags, command = command >> 16, command & 0xFFFF
            if command in (_CLOSE, _FORCE_CLOSE):
                self._ours.sendall(struct.pack("<i", 0))
                return True
            space = Space(kind=destination & 0xFF, id=destination >> 8)
            if command in (_OPEN, _OPEN2):
                self.empty.add(space)
            if command == _OPEN2:
                self._ours.sendall(bytes([self._parent_has(destination)]))
            elif command == _PARENT:
                self._ours.sendall(struct.pack("<i", self._parent_has(destination)))
            elif command in (_ADD, _HOLE, _ADD_F):
                if command != _ADD_F:
                    flags = PE_PRESENT if command == _ADD else PE_PARENT
                self.empty.discard(space)
                if flags & PE_PRESENT:
                    self._sink.run(space, vaddr, pages, flags)
                    begun = time.perf_counter()
                    if not self._receive_pages(pages * PAGE_BYTES):
                        return False
                    self.receiving_s += time.perf_counter() - begun
                    self.runs += 1
                else:
                    self._sink.hole(space, vaddr, pages, flags)
            elif command != _OPEN:
                raise ValueError(f"CRIU sent page-server command {command:#x}, which is not known")

    def _parent_has(self, destination: int) -> bool:
        # Of shared memory CRIU would call pages unchanged that nobody has asked about.
        return self._has_parent and destination & 0xFF == _TASK

    def _receive_pages(self, count: int) -> bool:
        while count:
            room = self._sink.reserve(count)
            got = self._ours.recv_into(room)
            if not got:
                return False
            self._sink.filled(got)
            self.page_bytes += got
            count -= got
        return True

    def _receive_all(self, room: memoryview) -> bool:
        while room:
            got = self._ours.recv_into(room)
            if not got:
                return False
            room = room[got:]
        return True
