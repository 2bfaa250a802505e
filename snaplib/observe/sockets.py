"""The sockets of a task at one instant, with their queues: bytes that a dump must carry."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Sequence
from typing import overload

import attrs
import numpy as np
import numpy.typing as npt

__all__ = ["SOCKET_DTYPE", "OpenSocket", "SocketTable", "state_name"]

#: One socket descriptor. Queues are -1 where the kernel does not tell them; addresses are as they are on
#: the wire, IPv4 in the first four bytes.
SOCKET_DTYPE = np.dtype(
    [
        ("pid", "<u4"),
        ("fd", "<u4"),
        ("inode", "<u8"),
        ("peer_inode", "<u8"),
        ("receive_queue", "<i8"),
        ("send_queue", "<i8"),
        ("family", "<u2"),
        ("type", "<u2"),
        ("protocol", "<u2"),
        ("state", "<u2"),
        ("local_port", "<u2"),
        ("peer_port", "<u2"),
        ("unused", "<u4"),
        ("local", "u1", (16,)),
        ("peer", "u1", (16,)),
    ]
)

SocketArray = npt.NDArray[np.void]

#: include/net/tcp_states.h; unix sockets use the same numbers, 7 for those not connected.
_STATES = (
    "UNKNOWN",
    "ESTABLISHED",
    "SYN_SENT",
    "SYN_RECV",
    "FIN_WAIT1",
    "FIN_WAIT2",
    "TIME_WAIT",
    "CLOSE",
    "CLOSE_WAIT",
    "LAST_ACK",
    "LISTEN",
    "CLOSING",
    "NEW_SYN_RECV",
)

_FAMILIES = {one.value: one.name.removeprefix("AF_").lower() for one in socket.AddressFamily}
_TYPES = {1: "stream", 2: "dgram", 3: "raw", 4: "rdm", 5: "seqpacket", 10: "packet"}


def state_name(number: int) -> str:
    """Return the name of a TCP state."""
    return _STATES[number] if number < len(_STATES) else "UNKNOWN"


@attrs.frozen
class OpenSocket:
    """One socket that a process of the task has open.

    Attributes:
        pid: Whose descriptor it is.
        fd: The descriptor.
        inode: The number in ``socket:[INODE]``.
        family: ``inet``, ``inet6``, ``unix``, ``netlink`` and so on.
        type: ``stream``, ``dgram``, ``seqpacket``, ``raw``.
        protocol: Number of the protocol: 6 TCP, 17 UDP; of other families their own.
        state: A TCP state such as ``ESTABLISHED``; unix and UDP sockets use the same words.
        receive_queue: Bytes to be read; of listening sockets connections to be accepted. None where the
            kernel does not tell.
        send_queue: Bytes that the other side has not taken; of listening sockets the backlog's limit.
        local: Address and port it is bound to, empty for unix sockets.
        peer: Address and port it is connected to, ``socket:[INODE]`` for unix sockets; empty if none.
    """

    pid: int
    fd: int
    inode: int
    family: str
    type: str
    protocol: int
    state: str
    receive_queue: int | None
    send_queue: int | None
    local: str
    peer: str


def _immutable(array: SocketArray) -> SocketArray:
    if array.flags.writeable:
        array = array.copy()
        array.flags.writeable = False
    return array


@attrs.frozen(hash=False)
class SocketTable(Sequence[OpenSocket]):
    """Open sockets, by process and descriptor; records are made when asked for.

    Attributes:
        array: Shape (n,), dtype `SOCKET_DTYPE`, read-only.
    """

    array: SocketArray = attrs.field(
        factory=lambda: np.empty(0, SOCKET_DTYPE),
        converter=_immutable,
        eq=attrs.cmp_using(eq=np.array_equal),
    )

    def __len__(self) -> int:
        return len(self.array)

    @overload
    def __getitem__(self, index: int) -> OpenSocket: ...
    @overload
    def __getitem__(self, index: slice) -> SocketTable: ...

    def __getitem__(self, index: int | slice) -> OpenSocket | SocketTable:
        if isinstance(index, slice):
            return SocketTable(self.array[index])
        return _record(self.array[index])

    def __iter__(self) -> Iterator[OpenSocket]:
        return map(_record, self.array)

    @property
    def queued_bytes(self) -> int:
        """Bytes in all queues, each socket once; those of listening sockets are no bytes."""
        _, first = np.unique(self.array["inode"], return_index=True)
        array = self.array[first]
        array = array[array["state"] != _STATES.index("LISTEN")]
        queues = array["receive_queue"].clip(0).sum() + array["send_queue"].clip(0).sum()
        return int(queues)

    def by_state(self) -> dict[str, int]:
        """Return how many TCP sockets there are in each state that there is."""
        tcp = self.array[self.array["protocol"] == socket.IPPROTO_TCP]
        tcp = tcp[(tcp["family"] == socket.AF_INET) | (tcp["family"] == socket.AF_INET6)]
        numbers, counts = np.unique(tcp["state"], return_counts=True)
        return {
            state_name(number): count
            for number, count in zip(numbers.tolist(), counts.tolist(), strict=True)
        }


def _record(row: np.void) -> OpenSocket:
    family = int(row["family"])
    name = _FAMILIES.get(family, str(family))
    receive, send = int(row["receive_queue"]), int(row["send_queue"])
    local = peer = ""
    if family in (socket.AF_INET, socket.AF_INET6):
        local = _address(family, row["local"], int(row["local_port"]))
        if row["peer_port"]:
            peer = _address(family, row["peer"], int(row["peer_port"]))
    elif row["peer_inode"]:
        peer = f"socket:[{row['peer_inode']}]"
    return OpenSocket(
        pid=int(row["pid"]),
        fd=int(row["fd"]),
        inode=int(row["inode"]),
        family=name,
        type=_TYPES.get(int(row["type"]), str(row["type"])),
        protocol=int(row["protocol"]),
        state=state_name(int(row["state"])),
        receive_queue=None if receive < 0 else receive,
        send_queue=None if send < 0 else send,
        local=local,
        peer=peer,
    )


def _address(family: int, raw: npt.NDArray[np.uint8], port: int) -> str:
    text = socket.inet_ntop(family, raw.tobytes()[: 4 if family == socket.AF_INET else 16])
    return f"[{text}]:{port}" if family == socket.AF_INET6 else f"{text}:{port}"
