"""Descriptors and sockets as tables."""

from __future__ import annotations

import socket
import stat

import numpy as np
import pytest

from snaplib.observe import (
    DESCRIPTOR_DTYPE,
    SOCKET_DTYPE,
    DescriptorKind,
    DescriptorTable,
    SocketTable,
)
from snaplib.observe.descriptors import kind_number, kind_of


@pytest.mark.parametrize(
    ("mode", "path", "kind"),
    [
        (stat.S_IFREG, "/etc/passwd", "file"),
        (stat.S_IFREG, "/tmp/gone (deleted)", "file"),
        (stat.S_IFREG, "/memfd:x (deleted)", "memfd"),
        (stat.S_IFDIR, "/", "directory"),
        (stat.S_IFCHR, "/dev/null", "device"),
        (stat.S_IFIFO, "pipe:[23]", "pipe"),
        (stat.S_IFIFO, "/tmp/fifo", "fifo"),
        (stat.S_IFSOCK, "socket:[23]", "socket"),
        # Linux 6.16 gave anonymous inodes a type inside of the kernel.
        (stat.S_IFREG, "anon_inode:[eventfd]", "eventfd"),
        (0, "anon_inode:[eventpoll]", "epoll"),
        (0, "anon_inode:inotify", "inotify"),
        (0, "anon_inode:[timerfd]", "timerfd"),
        (0, "anon_inode:[pidfd]", "pidfd"),
        (0, "pidfd:[23]", "pidfd"),
        (0, "anon_inode:[io_uring]", "io_uring"),
        (0, "anon_inode:bpf-prog", "bpf"),
        (0, "anon_inode:[something new]", "other"),
        (0, "", "other"),
    ],
)
def test_kind_of_a_descriptor(mode, path, kind) -> None:
    assert kind_of(mode, path) == kind


def test_descriptors_are_records_when_asked_for() -> None:
    array = np.zeros(2, DESCRIPTOR_DTYPE)
    array["pid"], array["fd"], array["path"] = [7, 8], [0, 5], [1, 0]
    array["kind"] = [kind_number(DescriptorKind.FILE), kind_number(DescriptorKind.PIPE)]
    table = DescriptorTable(array, ("pipe:[23]", "/a"))
    array["pid"] = 0  # the table has its own
    assert [(one.pid, one.fd, one.kind, one.path) for one in table] == [
        (7, 0, "file", "/a"),
        (8, 5, "pipe", "pipe:[23]"),
    ]
    assert table[-1].fd == 5
    assert table[:1] == table.of(7)
    assert table.by_kind() == {"file": 1, "pipe": 1}


def test_sockets_are_records_when_asked_for() -> None:
    array = np.zeros(3, SOCKET_DTYPE)
    array["inode"] = [1, 2, 2]
    array["family"] = [socket.AF_INET, socket.AF_INET6, socket.AF_INET6]
    array["type"], array["protocol"], array["state"] = 1, 6, [10, 1, 1]
    array["receive_queue"], array["send_queue"] = [3, 100, 100], [128, -1, -1]
    array["local_port"], array["peer_port"] = 80, [0, 23, 23]
    array["local"][0, :4] = (127, 0, 0, 1)
    array["local"][1:, 15] = 1
    table = SocketTable(array)
    first, second, _ = table
    assert (first.family, first.type, first.state, first.local, first.peer) == (
        "inet",
        "stream",
        "LISTEN",
        "127.0.0.1:80",
        "",
    )
    assert (second.local, second.peer, second.send_queue) == ("[::1]:80", "[::]:23", None)
    assert table.queued_bytes == 100, "a socket counts once, a backlog not at all"
    assert table.by_state() == {"LISTEN": 1, "ESTABLISHED": 2}
