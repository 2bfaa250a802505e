"""Sockets of a network namespace, as the kernel's sock_diag lists them.

The requests and answers are those of sock_diag(7) and the kernel's headers linux/unix_diag.h,
linux/inet_diag.h and linux/netlink_diag.h. They are spoken here directly, and only the sockets
asked for are decoded: a general netlink library takes 2 s for ten thousand.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from typing import TYPE_CHECKING

import attrs

from snaplib.kernel.sockdiag import dump, numbers, open_diag, read_attributes

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Iterator

__all__ = [
    "TCP_ESTABLISHED",
    "TCP_LISTEN",
    "Socket",
    "SocketTable",
    "list_sockets",
]

#: States of any kind of socket (net/tcp_states.h); unix sockets use the same numbers.
TCP_ESTABLISHED = 1
TCP_LISTEN = 10

_UNIX_REQUEST = struct.Struct("=BBHIII8x")  # family, protocol, pad, states, inode, show
_UNIX_MESSAGE = struct.Struct("=BBBxI8x")  # family, type, state, inode
_UNIX_NAME, _UNIX_PEER, _UNIX_ICONS, _UNIX_RQLEN, _UNIX_SHUTDOWN = 0, 2, 3, 4, 6
_UNIX_SHOW = 0x01 | 0x04 | 0x08 | 0x10  # name, peer, icons, rqlen

_INET_REQUEST = struct.Struct("=BBBxI48x")  # family, protocol, extensions, states
_INET_MESSAGE = struct.Struct("=BBxx2s2s16s16s12x4xIIII")  # ... rqueue, wqueue, uid, inode

_NETLINK_REQUEST = struct.Struct("=BBHII8x")  # family, protocol, pad, inode, show
_NETLINK_MESSAGE = struct.Struct(
    "=BBBBIIII8x"
)  # family, type, protocol, state, ports, group, inode
_NETLINK_ALL = 255
_NETLINK_SHOW = 0x01 | 0x02  # memory, groups
_NETLINK_MEMINFO, _NETLINK_GROUPS = 0, 1


@attrs.frozen
class Socket:
    """One socket.

    Attributes:
        inode: Inode, the number in ``socket:[INODE]``.
        family: ``socket.AF_*``.
        kind: ``socket.SOCK_*``; 0 where the kernel does not tell it.
        protocol: Protocol number; 0 for unix sockets.
        state: Number of its state in net/tcp_states.h.
        local: Its own address or name; ``@`` begins an abstract name; empty without one.
        remote: Address of the other side of an internet socket; empty without one.
        receive_queue: Bytes to be read, or connections to be accepted by one that listens.
        send_queue: Bytes not yet taken by the other side.
        peer_inode: Inode of the unix socket it is connected to; 0 when that has not been accepted
            yet; None when it is not connected.
        pending_inodes: Unix sockets that wait to be accepted by this one; 0 for those closed.
        shutdown: Bits of what was shut down: 1 reading, 2 writing.
        group_words: Number of 32-bit words of a netlink socket's groups, up to the last not 0.
    """

    inode: int
    family: int
    kind: int
    protocol: int
    state: int
    local: str = ""
    remote: str = ""
    receive_queue: int = 0
    send_queue: int = 0
    peer_inode: int | None = None
    pending_inodes: tuple[int, ...] = ()
    shutdown: int = 0
    group_words: int = 0


@attrs.frozen
class SocketTable:
    """The sockets of a network namespace.

    Attributes:
        by_inode: Each by its inode. Internet sockets that are neither bound nor connected are not
            listed by the kernel.
        families: The families whose lists are complete: this kernel may lack some.
    """

    by_inode: dict[int, Socket] = attrs.field(factory=dict)
    families: frozenset[int] = frozenset()


def list_sockets(
    families: Iterable[int], inodes: Collection[int], namespace: str | None = None
) -> SocketTable:
    """List sockets of a network namespace.

    Args:
        families: Of ``AF_UNIX``, ``AF_INET``, ``AF_INET6`` and ``AF_NETLINK``; the internet
            families give TCP and UDP sockets.
        inodes: The sockets wanted. With unix sockets come their peers and all that listen.
        namespace: Path of the namespace, such as ``/proc/1/ns/net``; our own by default.

    Raises:
        OSError: The namespace cannot be entered.
    """
    found: dict[int, Socket] = {}
    complete: set[int] = set()
    with open_diag(namespace) as connection:
        for family in sorted(set(families)):
            try:
                for one in _list_family(connection, family, inodes):
                    found[one.inode] = one
                complete.add(family)
            except OSError as error:
                # A kernel without the diag module of this family.
                if error.errno not in (errno.ENOENT, errno.EINVAL, errno.EOPNOTSUPP):
                    raise
    return SocketTable(found, frozenset(complete))


def _list_family(
    connection: socket.socket, family: int, inodes: Collection[int]
) -> Iterator[Socket]:
    if family == socket.AF_UNIX:
        request = _UNIX_REQUEST.pack(family, 0, 0, 0xFFFFFFFF, 0, _UNIX_SHOW)
        yield from _unix_sockets(dump(connection, request), inodes)
    elif family == socket.AF_NETLINK:
        request = _NETLINK_REQUEST.pack(family, _NETLINK_ALL, 0, 0, _NETLINK_SHOW)
        for payload in dump(connection, request):
            if _NETLINK_MESSAGE.unpack_from(payload)[-1] in inodes:
                yield _netlink_socket(payload)
    else:
        for protocol in (socket.IPPROTO_TCP, socket.IPPROTO_UDP):
            request = _INET_REQUEST.pack(family, protocol, 0, 0xFFFFFFFF)
            for payload in dump(connection, request):
                if _INET_MESSAGE.unpack_from(payload)[-1] in inodes:
                    yield _inet_socket(payload, protocol)


def _unix_sockets(payloads: list[bytes], inodes: Collection[int]) -> Iterator[Socket]:
    others: dict[int, bytes] = {}
    peers: list[int] = []
    for payload in payloads:
        _, _, state, inode = _UNIX_MESSAGE.unpack_from(payload)
        if inode in inodes or state == TCP_LISTEN:
            one = _unix_socket(payload)
            yield one
            if one.peer_inode and inode in inodes:
                peers.append(one.peer_inode)
        else:
            others[inode] = payload
    for peer in peers:
        if peer in others:
            yield _unix_socket(others.pop(peer))


def _unix_socket(payload: bytes) -> Socket:
    family, kind, state, inode = _UNIX_MESSAGE.unpack_from(payload)
    more = read_attributes(payload, _UNIX_MESSAGE.size)
    queues = numbers(more.get(_UNIX_RQLEN, bytes(8)))
    name = more.get(_UNIX_NAME, b"")
    abstract = name.startswith(b"\0")
    text = os.fsdecode(name[1:] if abstract else name.rstrip(b"\0"))
    return Socket(
        inode=inode,
        family=family,
        kind=kind,
        protocol=0,
        state=state,
        local="@" + text if abstract else text,
        receive_queue=queues[0],
        send_queue=queues[1],
        peer_inode=numbers(more[_UNIX_PEER])[0] if _UNIX_PEER in more else None,
        pending_inodes=numbers(more.get(_UNIX_ICONS, b"")),
        shutdown=more[_UNIX_SHUTDOWN][0] if more.get(_UNIX_SHUTDOWN) else 0,
    )


def _inet_socket(payload: bytes, protocol: int) -> Socket:
    fields = _INET_MESSAGE.unpack_from(payload)
    family, state, local_port, remote_port, local, remote, receive, send, _, inode = fields
    return Socket(
        inode=inode,
        family=family,
        kind=socket.SOCK_STREAM if protocol == socket.IPPROTO_TCP else socket.SOCK_DGRAM,
        protocol=protocol,
        state=state,
        local=_address(family, local, local_port),
        remote=_address(family, remote, remote_port),
        receive_queue=receive,
        send_queue=send,
    )


def _address(family: int, address: bytes, port: bytes) -> str:
    number = int.from_bytes(port, "big")
    if number == 0:
        return ""
    if family == socket.AF_INET:
        return f"{socket.inet_ntop(family, address[:4])}:{number}"
    return f"[{socket.inet_ntop(family, address)}]:{number}"


def _netlink_socket(payload: bytes) -> Socket:
    family, kind, protocol, state, port, _, _, inode = _NETLINK_MESSAGE.unpack_from(payload)
    more = read_attributes(payload, _NETLINK_MESSAGE.size)
    memory = numbers(more.get(_NETLINK_MEMINFO, bytes(4)))
    groups = numbers(more.get(_NETLINK_GROUPS, b""))
    return Socket(
        inode=inode,
        family=family,
        kind=kind,
        protocol=protocol,
        state=state,
        local=str(port) if port else "",
        receive_queue=memory[0],
        group_words=max((place + 1 for place, word in enumerate(groups) if word), default=0),
    )
