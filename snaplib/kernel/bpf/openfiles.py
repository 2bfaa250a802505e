"""What the descriptor iterator writes, taken apart: descriptors, and what is known of those that are sockets."""

from __future__ import annotations

from typing import TYPE_CHECKING

import attrs
import numpy as np

from snaplib.kernel.bpf import records

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["OpenFiles", "OpenFilesParser"]


@attrs.frozen
class OpenFiles:
    """Open descriptors of some processes, in memory that is written over by the next look.

    Attributes:
        descriptors: Shape (n,), dtype `records.DESCRIPTOR`.
        sockets: Shape (m,), dtype `records.SOCKET`.
        owners: The place of each socket's descriptor; shape (m,), ascending.
    """

    descriptors: np.ndarray
    sockets: np.ndarray
    owners: np.ndarray

    def by_process(self) -> OpenFiles:
        """Return them by process and number, without those of process 0."""
        pids, fds = self.descriptors["tgid"], self.descriptors["fd"]
        # Most tasks have few processes, and the kernel lists what is open in each of its threads in order.
        if pids.size and pids[0] and (pids == pids[0]).all() and (fds[1:] >= fds[:-1]).all():
            return self
        order = np.lexsort((fds, pids))
        order = order[np.count_nonzero(pids == 0) :]
        place = np.full(pids.size, -1)
        place[order] = np.arange(order.size)
        owners = place[self.owners]
        sockets = np.argsort(owners)
        sockets = sockets[np.count_nonzero(owners < 0) :]
        return OpenFiles(self.descriptors.take(order), self.sockets.take(sockets), owners[sockets])


class OpenFilesParser:
    """Takes apart what the iterator wrote, again and again in the same memory.

    Pages that the kernel has to find first cost more than all that is done here.
    """

    def __init__(self) -> None:
        self._descriptors = np.empty(0, records.DESCRIPTOR)
        self._sockets = np.empty(0, records.SOCKET)

    def parse(self, found: np.ndarray, pids: Mapping[int, int]) -> OpenFiles:
        """Return descriptors and sockets.

        Args:
            found: Shape (n + m,), dtype `records.DESCRIPTOR`: what is known of a socket is behind its
                descriptor. It is changed, and may be part of the result.
            pids: What to put in the place of each ``tgid``; 0 in that of others.
        """
        details = np.flatnonzero(found["tgid"] == 0)
        descriptors, sockets = found, self._sockets[:0]
        if details.size:
            mine = np.flatnonzero(found["tgid"])
            self._descriptors = _with_room(self._descriptors, mine.size)
            self._sockets = _with_room(self._sockets, details.size)
            sockets = self._sockets[: details.size]
            descriptors = self._descriptors[: mine.size]
            # "clip": without a check, and so without a copy that would be needed should the check fail.
            found.view(records.SOCKET).take(details, out=sockets, mode="clip")
            found.take(mine, out=descriptors, mode="clip")
        descriptors["tgid"] = _replaced(descriptors["tgid"], pids)
        # Each is behind its own descriptor, and that behind those of the sockets before it.
        return OpenFiles(descriptors, sockets, details - 1 - np.arange(details.size))


def _with_room(array: np.ndarray, count: int) -> np.ndarray:
    return array if array.size >= count else np.empty(count + count // 4, array.dtype)


def _replaced(numbers: np.ndarray, by: Mapping[int, int]) -> np.ndarray:
    """Return numbers with each replaced, by 0 where there is nothing; those alike are mostly in a row."""
    if not numbers.size:
        return numbers
    first = np.flatnonzero(np.concatenate(([True], numbers[1:] != numbers[:-1])))
    instead = np.array([by.get(one, 0) for one in numbers[first].tolist()], np.uint32)
    return np.repeat(instead, np.diff(first, append=numbers.size))
