"""What the descriptor iterator writes, taken apart and put in order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as some

from snaplib.kernel.bpf import OpenFilesParser, records


def written(files: list[tuple[int, int, bool]]) -> np.ndarray:
    """As the program writes (process, number, whether it is a socket): the queue of a socket is its number."""
    found = np.zeros(len(files) + sum(is_socket for _, _, is_socket in files), records.DESCRIPTOR)
    at = 0
    for tgid, fd, is_socket in files:
        found[at]["tgid"], found[at]["fd"] = tgid, fd
        at += 1
        if is_socket:
            found[at : at + 1].view(records.SOCKET)["receive_queue"] = fd
            at += 1
    return found


def test_both_records_are_of_one_size() -> None:
    assert records.SOCKET.itemsize == records.DESCRIPTOR.itemsize
    assert records.SOCKET.fields["none"][1] == records.DESCRIPTOR.fields["tgid"][1] == 0


def test_sockets_are_found_behind_their_descriptors() -> None:
    found = written([(300, 0, False), (300, 1, True), (300, 2, True), (300, 5, False)])
    files = OpenFilesParser().parse(found, {300: 3})
    assert files.descriptors[["tgid", "fd"]].tolist() == [(3, 0), (3, 1), (3, 2), (3, 5)]
    assert files.owners.tolist() == [1, 2]
    assert files.sockets["receive_queue"].tolist() == [1, 2]
    assert files.by_process() is files, "nothing to be put in order"


@pytest.mark.parametrize("pids", [{}, {300: 3}])
def test_nothing(pids) -> None:
    files = OpenFilesParser().parse(np.zeros(0, records.DESCRIPTOR), pids).by_process()
    assert (len(files.descriptors), len(files.sockets), len(files.owners)) == (0, 0, 0)


@given(
    some.lists(
        some.tuples(some.integers(1, 9), some.integers(0, 99), some.booleans()),
        max_size=40,
        unique_by=lambda one: one[:2],
    )
)
def test_any_order_is_put_right(listed) -> None:
    """Those of even processes are known; the others have ended meanwhile, or have just begun."""
    pids = {tgid: 100 - tgid for tgid in range(2, 9, 2)}
    files = OpenFilesParser().parse(written(listed), pids).by_process()
    known = sorted((pids[tgid], fd, is_socket) for tgid, fd, is_socket in listed if tgid in pids)
    assert files.descriptors[["tgid", "fd"]].tolist() == [(pid, fd) for pid, fd, _ in known]
    owners = files.descriptors[files.owners]
    assert owners[["tgid", "fd"]].tolist() == [(pid, fd) for pid, fd, one in known if one]
    assert files.sockets["receive_queue"].tolist() == owners["fd"].tolist()
