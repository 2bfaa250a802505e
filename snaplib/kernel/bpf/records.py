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
    "SETTING_LEVEL",
    "SETTING_NAMESPACE",
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
        ("magic", "<u4"),
        ("socket", "<u8"),
        ("family", "<u2"),
        ("type", "<u2"),
        ("protocol", "<u2"),
        ("state", "<u2"),
        ("receive_queue", "<u4"),
        ("send_queue", "<u4"),
        ("local_port", "<u2"),
        ("peer_port", ">u2"),
        ("unused", "<u4"),
        ("local", "V16"),
        ("peer", "V16"),
        ("peer_inode", "<u8"),
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
