"""The open descriptors of a task at one instant, thousands of them in little room."""

from __future__ import annotations

import enum
import stat
from collections.abc import Iterator, Sequence
from typing import overload

import attrs
import numpy as np
import numpy.typing as npt

__all__ = [
    "DESCRIPTOR_DTYPE",
    "DescriptorKind",
    "DescriptorTable",
    "OpenDescriptor",
    "kind_number",
    "kind_of",
]

#: One descriptor. ``open_file`` is the same for descriptors that share one open file (dup, fork), and
#: with it the position; ``path`` is an index into `DescriptorTable.paths`; ``kind`` into
#: `DescriptorKind`, in its order.
DESCRIPTOR_DTYPE = np.dtype(
    [
        ("pid", "<u4"),
        ("fd", "<u4"),
        ("flags", "<u4"),
        ("mode", "<u4"),
        ("inode", "<u8"),
        ("position", "<i8"),
        ("device", "<u4"),
        ("open_file", "<u4"),
        ("path", "<u4"),
        ("kind", "<u4"),
    ]
)

DescriptorArray = npt.NDArray[np.void]


class DescriptorKind(enum.StrEnum):
    """What is behind a descriptor. New kinds go to the end: traces hold their numbers."""

    FILE = "file"
    DIRECTORY = "directory"
    DEVICE = "device"
    PIPE = "pipe"
    FIFO = "fifo"
    SOCKET = "socket"
    MEMFD = "memfd"
    EVENTFD = "eventfd"
    EPOLL = "epoll"
    TIMERFD = "timerfd"
    SIGNALFD = "signalfd"
    INOTIFY = "inotify"
    FANOTIFY = "fanotify"
    PIDFD = "pidfd"
    IO_URING = "io_uring"
    USERFAULTFD = "userfaultfd"
    PERF = "perf"
    BPF = "bpf"
    OTHER = "other"


_KINDS = tuple(DescriptorKind)
_NUMBERS = {kind: number for number, kind in enumerate(_KINDS)}

#: Beginnings of what /proc shows for files without a path. Kernels spell some with brackets, some not.
_WITHOUT_PATH = {
    "eventfd": DescriptorKind.EVENTFD,
    "eventpoll": DescriptorKind.EPOLL,
    "timerfd": DescriptorKind.TIMERFD,
    "signalfd": DescriptorKind.SIGNALFD,
    "inotify": DescriptorKind.INOTIFY,
    "fanotify": DescriptorKind.FANOTIFY,
    "pidfd": DescriptorKind.PIDFD,
    "io_uring": DescriptorKind.IO_URING,
    "userfaultfd": DescriptorKind.USERFAULTFD,
    "perf_event": DescriptorKind.PERF,
    "bpf": DescriptorKind.BPF,
}


def kind_of(mode: int, path: str) -> DescriptorKind:
    """Return the kind of a file by its mode (st_mode, or the inode's) and what /proc/PID/fd/N links to."""
    if path.startswith("anon_inode:"):
        name = path.removeprefix("anon_inode:").strip("[]")
        for beginning, kind in _WITHOUT_PATH.items():
            if name.startswith(beginning):
                return kind
        return DescriptorKind.OTHER
    if path.startswith("pidfd:"):  # a file system of its own since Linux 6.9
        return DescriptorKind.PIDFD
    if path.startswith("/memfd:"):
        return DescriptorKind.MEMFD
    by_mode = {
        stat.S_IFREG: DescriptorKind.FILE,
        stat.S_IFDIR: DescriptorKind.DIRECTORY,
        stat.S_IFCHR: DescriptorKind.DEVICE,
        stat.S_IFBLK: DescriptorKind.DEVICE,
        stat.S_IFSOCK: DescriptorKind.SOCKET,
        stat.S_IFIFO: DescriptorKind.PIPE if path.startswith("pipe:[") else DescriptorKind.FIFO,
    }
    return by_mode.get(stat.S_IFMT(mode), DescriptorKind.OTHER)


@attrs.frozen
class OpenDescriptor:
    """One open descriptor.

    Attributes:
        pid: Whose it is.
        fd: Its number.
        kind: What is behind it.
        path: What /proc/PID/fd/N links to; empty when it was closed before that could be read.
        position: Position in the file, in bytes.
        flags: Flags of open(2), with ``O_CLOEXEC``.
        mode: Type and permissions of the file (inode(7)).
        inode: Its inode.
        device: Its device, as ``os.makedev`` makes it.
        open_file: The same number for descriptors of this table that share one open file.
    """

    pid: int
    fd: int
    kind: DescriptorKind
    path: str
    position: int
    flags: int
    mode: int
    inode: int
    device: int
    open_file: int


def _immutable(array: DescriptorArray) -> DescriptorArray:
    if array.flags.writeable:
        array = array.copy()
        array.flags.writeable = False
    return array


@attrs.frozen(hash=False)
class DescriptorTable(Sequence[OpenDescriptor]):
    """Open descriptors, by process and number; records are made when asked for.

    Attributes:
        array: Shape (n,), dtype `DESCRIPTOR_DTYPE`, read-only.
        paths: What its ``path`` column points to.
    """

    array: DescriptorArray = attrs.field(
        factory=lambda: np.empty(0, DESCRIPTOR_DTYPE),
        converter=_immutable,
        eq=attrs.cmp_using(eq=np.array_equal),
    )
    paths: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.array)

    @overload
    def __getitem__(self, index: int) -> OpenDescriptor: ...
    @overload
    def __getitem__(self, index: slice) -> DescriptorTable: ...

    def __getitem__(self, index: int | slice) -> OpenDescriptor | DescriptorTable:
        if isinstance(index, slice):
            return DescriptorTable(self.array[index], self.paths)
        return self._record(self.array[index].item())

    def __iter__(self) -> Iterator[OpenDescriptor]:
        return map(self._record, self.array.tolist())

    def of(self, pid: int) -> DescriptorTable:
        """Return those of one process."""
        return DescriptorTable(self.array[self.array["pid"] == pid], self.paths)

    def by_kind(self) -> dict[DescriptorKind, int]:
        """Return how many there are of each kind that there is."""
        counts = np.bincount(self.array["kind"], minlength=len(_KINDS))
        return {kind: int(counts[number]) for number, kind in enumerate(_KINDS) if counts[number]}

    def _record(self, row: tuple[int, ...]) -> OpenDescriptor:
        pid, fd, flags, mode, inode, position, device, open_file, path, kind = row
        return OpenDescriptor(
            pid=pid,
            fd=fd,
            kind=_KINDS[kind],
            path=self.paths[path],
            position=position,
            flags=flags,
            mode=mode,
            inode=inode,
            device=device,
            open_file=open_file,
        )


def kind_number(kind: DescriptorKind) -> int:
    """Return what stands for a kind in the array."""
    return _NUMBERS[kind]
