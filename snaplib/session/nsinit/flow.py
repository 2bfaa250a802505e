"""A flow: bytes from one end to another, in order, none lost, none twice, and never blocking.

Between two pipes, and from a pipe to a file, the bytes go through splice(2) and are not copied.
Otherwise at most one chunk is held in memory.  What a flow has taken but not yet passed on is its
`pending`; it is handed over with a snapshot, or passed on first when the task goes on.
"""

from __future__ import annotations

import os
import select

from snaplib.session.nsinit.ends import GONE, End

__all__ = ["Flow"]

_CHUNK_BYTES = 1 << 18
_SPLICE_BYTES = 1 << 20
#: How often a flow moves bytes before the others get their turn.
_ROUNDS = 16
_SPLICE_FLAGS = os.SPLICE_F_NONBLOCK | os.SPLICE_F_MOVE
_HANGUP = select.POLLERR | select.POLLHUP | select.POLLNVAL


class Flow:
    """One direction of a stream.

    Args:
        source: Where bytes come from; None: nowhere, only what is pending is passed on.
        sink: Where they go; None: they are thrown away.
        survives_sink: Keep taking bytes, and throw them away, when nobody reads the sink any more,
            as a terminal that was hung up does.  Otherwise the source is closed, so that its
            writers get SIGPIPE as without us.
        keeps_sink: Do not close the sink when the source has ended: the end of an outer terminal is
            not the end of the task's terminal.
        pending: Bytes to pass on first.
        skip_bytes: How much of the source to throw away: its writer began anew, and what it writes
            first has been passed on before.
    """

    def __init__(
        self,
        source: End | None,
        sink: End | None,
        *,
        survives_sink: bool = False,
        keeps_sink: bool = False,
        pending: bytes = b"",
        skip_bytes: int = 0,
    ) -> None:
        self.source = source
        self.sink = sink
        self.survives_sink = survives_sink
        self.keeps_sink = keeps_sink
        self.pending = pending
        self.skip_bytes = skip_bytes
        self.delivered_bytes = 0
        #: Why the flow was given up, if its ends were not simply closed.
        self.failure = ""
        self._waits_for_sink = False
        self._splices = False
        self._choose_way()

    def _choose_way(self) -> None:
        source, sink = self.source, self.sink
        # A file opened with O_APPEND refuses splice (splice(2), EINVAL).
        self._splices = (
            source is not None
            and sink is not None
            and source.kind == "pipe"
            and (sink.kind == "pipe" or (sink.kind == "file" and not sink.appends))
        )

    @property
    def done(self) -> bool:
        """Whether nothing can come any more, and all that came was passed on."""
        return self.source is None and not self.pending

    def interests(self) -> list[tuple[int, int]]:
        """Return the (descriptor, poll events) to wake `pump` for."""
        wanted = []
        if self.sink is not None:
            waits = self.pending or self._waits_for_sink
            # With no events asked for, poll still tells when the reader has gone.
            if waits or self.sink.kind in ("pipe", "socket", "terminal"):
                wanted.append((self.sink.fd, select.POLLOUT if waits else 0))
        if self.source is not None and not self.pending and not self._waits_for_sink:
            wanted.append((self.source.fd, select.POLLIN))
        return wanted

    def wake(self, fd: int, events: int) -> None:
        """Do what poll(2) says can be done.

        Args:
            fd: The descriptor that is ready.
            events: What it is ready for.
        """
        if self.sink is not None and fd == self.sink.fd and events & _HANGUP:
            self._lose_sink(None)
        self.pump()

    def pump(self) -> bool:
        """Move what can be moved now.

        Returns:
            Whether there may be more to move at once.
        """
        return all(self._step() for _ in range(_ROUNDS))

    @property
    def stuck(self) -> bool:
        """Whether something came that the sink has no room for."""
        return bool(self.pending) or self._waits_for_sink

    def take_rest(self) -> bytes:
        """Take what is in the source into `pending`, and return a copy of that."""
        parts = [self.pending]
        while self.source is not None and (data := self.source.read(_CHUNK_BYTES)) is not None:
            if not data:
                self._end_source(keep_sink=True)
                break
            parts.append(data)
        self.pending = b"".join(parts)
        return self.pending

    def change_sink(self, sink: End | None) -> None:
        """Pass on to another end from now on."""
        if self.sink is not None:
            self.sink.close()
        self.sink = sink
        self.failure = ""
        self._waits_for_sink = False
        self._choose_way()

    def change_source(self, source: End | None) -> None:
        """Take from another end from now on."""
        if self.source is not None:
            self.source.close()
        self.source = source
        self._waits_for_sink = False
        self._choose_way()

    def close(self) -> None:
        """Close both ends; what is pending is dropped."""
        self.pending = b""
        self.keeps_sink = False
        self._end_source()
        self._end_sink()

    def _step(self) -> bool:
        """Move bytes once; whether it is worth trying again at once."""
        self._waits_for_sink = False
        if self.pending:
            return self._write_pending()
        if self.source is None:
            self._end_sink()
            return False
        if self._splices and not self.skip_bytes:
            return self._splice()
        try:
            data = self.source.read(min(_CHUNK_BYTES, self.skip_bytes or _CHUNK_BYTES))
        except OSError as error:
            self.failure = str(error)
            data = b""
        if data is None:
            return False
        if not data:
            self._end_source()
            return False
        if self.skip_bytes:
            self.skip_bytes -= len(data)
            return True
        self.pending = data
        return self._write_pending()

    def _write_pending(self) -> bool:
        if self.sink is None:
            self.pending = b""
            return True
        try:
            written = self.sink.write(self.pending)
        except OSError as error:
            self._lose_sink(error)
            return False
        self.delivered_bytes += written
        self.pending = self.pending[written:]
        self._waits_for_sink = bool(self.pending)
        return not self.pending

    def _splice(self) -> bool:
        assert self.source is not None
        assert self.sink is not None
        try:
            moved = os.splice(self.source.fd, self.sink.fd, _SPLICE_BYTES, flags=_SPLICE_FLAGS)
        except BlockingIOError:
            # Either end may be the reason.  Only the source can be asked: nobody else takes from it,
            # while the sink may have got room since.
            self._waits_for_sink = self.source.has_input()
            return False
        except OSError as error:
            self._lose_sink(error)
            return False
        if moved == 0:
            self._end_source()
            return False
        self.delivered_bytes += moved
        return True

    def _lose_sink(self, error: OSError | None) -> None:
        """Nobody reads the sink any more, or it cannot take anything (a full disk)."""
        if error is not None and error.errno not in GONE:
            self.failure = str(error)
        self.pending = b""
        self._end_sink()
        if not self.survives_sink:
            self._end_source()

    def _end_source(self, *, keep_sink: bool = False) -> None:
        if self.source is not None:
            self.source.close()
            self.source = None
        self._waits_for_sink = False
        self._splices = False
        if not (keep_sink or self.pending):
            self._end_sink()

    def _end_sink(self) -> None:
        if self.sink is not None and not self.keeps_sink:
            self.sink.close()
            self.sink = None
        self._waits_for_sink = False
        self._splices = False
