"""What the programs in `bpf/` write, as numpy types; the C sources name the same fields."""

from __future__ import annotations

import numpy as np

__all__ = [
    "ADDED",
    "COUNTS",
    "DESCRIPTOR",
    "EVENT",
    "EVENT_EXEC",
    "EVENT_EXIT",
    "EVENT_FORK",
    "LOST_EVENT",
    "LOST_MEMBER",
    "LOST_SOCKET",
    "PROCESS",
    "SETTING_CGROUP",
    "SETTING_LEARN",
    "SETTING_LEVEL",
    "SETTING_NAMESPACE",
    "SOCKET",
    "UNKNOWN",
]

#: bpf/descriptors.c
DESCRIPTOR = np.dtype(
    [
        ("tgid", "<u4"),
        ("fd", "<u4"),
        ("flags", "<u4"),
        ("mode", "<u4"),
        ("file", "<u8"),
        ("inode", "<u8"),
        ("position", "<i8"),
        ("device", "<u4"),
        ("unused", "<u4", (3,)),
    ]
)

#: What follows the descriptor of a socket, in the place of another descriptor. ``local`` is the inode of the
#: peer for unix sockets.
SOCKET = np.dtype(
    [
        ("none", "<u4"),
        ("receive_queue", "<u4"),
        ("send_queue", "<u4"),
        ("family", "<u2"),
        ("protocol", "<u2"),
        ("type", "u1"),
        ("state", "u1"),
        ("local_port", "<u2"),
        ("peer_port", ">u2"),
        ("unused", "<u2"),
        ("local", "u1", (16,)),
        ("peer", "u1", (16,)),
    ]
)

#: A queue that this kernel does not tell.
UNKNOWN = 0xFFFFFFFF

#: bpf/tasks.c
PROCESS = np.dtype(
    [
        ("tgid", "<u4"),
        ("parent", "<u4"),
        ("start_boottime_ns", "<u8"),
        ("threads", "<u4"),
        ("live", "<u4"),
        ("member", "<u4"),
        ("level", "<u4"),
        ("ids", "<u4", (8,)),
        ("comm", "S16"),
    ]
)

#: bpf/include/snaplib/common.h: of one process, one for each CPU.
COUNTS = np.dtype(
    [
        ("user", "<u8", (4,)),
        ("kernel", "<u8", (4,)),
        ("rss", "<u8", (4,)),
        ("forks", "<u8"),
        ("execs", "<u8"),
        ("threads_started", "<u8"),
        ("threads_ended", "<u8"),
    ]
)

LOST_EVENT = 0
LOST_MEMBER = 1
LOST_SOCKET = 2

#: How a member that user space has added is marked in the map of members.
ADDED = 1

#: bpf/include/snaplib/common.h
SETTING_CGROUP = 0
SETTING_LEVEL = 1
SETTING_NAMESPACE = 2
SETTING_LEARN = 3

#: bpf/tree.c
EVENT = np.dtype(
    [
        ("time_ns", "<u8"),
        ("kind", "<u4"),
        ("pid", "<u4"),
        ("child", "<u4"),
        ("unused", "<u4"),
    ]
)
EVENT_FORK = 1
EVENT_EXEC = 2
EVENT_EXIT = 3
