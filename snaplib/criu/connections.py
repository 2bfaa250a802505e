"""TCP connections in CRIU's images, and how to have them restored in another way than they were.

They are entries of ``files.img``; what is under way is in a ``tcp-stream`` image for each (CRIU: images/sk-inet.proto).
"""

from __future__ import annotations

import ipaddress
import socket
import struct
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import attrs

from snaplib.criu.binary import Criu
from snaplib.criu.images import image_entries, rewrite_entries
from snaplib.criu.protocol import image_messages

__all__ = [
    "CLOSE_WAIT",
    "ESTABLISHED",
    "SYN_SENT",
    "Connection",
    "Endpoint",
    "Placement",
    "place_connections",
    "read_connections",
    "read_servers",
]

# Of the kernel's include/net/tcp_states.h.
ESTABLISHED = 1
SYN_SENT = 2
_CLOSE = 7
CLOSE_WAIT = 8

#: CRIU's images/sk-opts.proto, sk_shutdown.
_SHUT_BOTH = 2

_FILES = "files.img"


@attrs.frozen(order=True)
class Endpoint:
    """One side of a connection.

    Attributes:
        address: Of IPv4 or IPv6, as text.
        port: The port.
    """

    address: str
    port: int

    @property
    def pair(self) -> tuple[str, int]:
        """As Python's sockets take it."""
        return self.address, self.port

    @property
    def plain(self) -> Endpoint:
        """With an IPv4 address where it is one in the guise of IPv6."""
        address = ipaddress.ip_address(self.address)
        mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
        return Endpoint(str(mapped), self.port) if mapped else self

    def __str__(self) -> str:
        return (
            f"[{self.address}]:{self.port}"
            if ":" in self.address
            else f"{self.address}:{self.port}"
        )


@attrs.frozen
class Connection:
    """A connected TCP socket, or one that is only bound.

    Attributes:
        id: What the images call it.
        family: ``socket.AF_INET`` or ``AF_INET6``.
        state: Number of its state in net/tcp_states.h.
        local: Its own side.
        remote: The other side; port 0 without one.
        kind: ``socket.SOCK_STREAM`` or ``SOCK_DGRAM``.
        device: The network interface that it is bound to; empty without one.
    """

    id: int
    family: int
    state: int
    local: Endpoint
    remote: Endpoint
    kind: int = socket.SOCK_STREAM
    device: str = ""

    @property
    def ends(self) -> tuple[Endpoint, Endpoint]:
        """Both sides, its own first, with IPv4 addresses as such."""
        return self.local.plain, self.remote.plain


@attrs.frozen
class Placement:
    """How a connection is to be restored.

    Attributes:
        local: Its own side; None for a socket that is not connected.
        remote: The other side.
        state: Number of its state.
        ended: Whether a socket that is not connected says that its connection has ended.
    """

    local: Endpoint | None = None
    remote: Endpoint | None = None
    state: int = _CLOSE
    ended: bool = True


def read_connections(criu: Criu, images: Path) -> tuple[Connection, ...]:
    """Return the connected TCP sockets of a task.

    Args:
        criu: The CRIU that will restore.
        images: The folder of images.

    Raises:
        ValueError: An image is damaged.
    """
    return tuple(_record(one) for one in _sockets(criu, images) if _is_connection(one))


def read_servers(criu: Criu, images: Path) -> tuple[Connection, ...]:
    """Return the TCP and UDP sockets of a task that are bound and not connected.

    Args:
        criu: The CRIU that will restore.
        images: The folder of images.

    Raises:
        ValueError: An image is damaged.
    """
    return tuple(
        _record(one) for one in _sockets(criu, images) if one.src_port and not one.dst_port
    )


def place_connections(criu: Criu, images: Path, placements: Mapping[int, Placement]) -> None:
    """Have connections restored in another way.

    Args:
        criu: The CRIU that will restore.
        images: The folder of images.
        placements: How, by what the images call them.

    Raises:
        ValueError: An image is damaged.
    """
    if not placements:
        return

    def change(entry: Any) -> bool:
        if not entry.HasField("isk") or not _is_connection(entry.isk):
            return False
        if entry.isk.id not in placements:
            return False
        _place(entry.isk, placements[entry.isk.id])
        return True

    rewrite_entries(images / _FILES, image_messages(criu, "fdinfo").file_entry, change)


def _sockets(criu: Criu, images: Path) -> Iterator[Any]:
    """Yield the sockets of the Internet's families, inet_sk_entry."""
    for entry in image_entries(images / _FILES, image_messages(criu, "fdinfo").file_entry):
        if entry.HasField("isk"):
            yield entry.isk


def _is_connection(one: Any) -> bool:
    is_tcp = one.proto == socket.IPPROTO_TCP and one.type == socket.SOCK_STREAM
    return is_tcp and bool(one.dst_port)


def _record(one: Any) -> Connection:
    return Connection(
        id=one.id,
        kind=one.type,
        family=one.family,
        state=one.state,
        local=Endpoint(_address(one.family, one.src_addr), one.src_port),
        remote=Endpoint(_address(one.family, one.dst_addr), one.dst_port),
        device=one.opts.so_bound_dev,
    )


def _place(one: Any, placement: Placement) -> None:
    one.state = placement.state
    one.opts.ClearField("so_bound_dev")
    if placement.local is None or placement.remote is None:
        # Neither bound nor connected.
        one.src_port = one.dst_port = 0
        if placement.ended:
            one.shutdown = _SHUT_BOTH
        else:
            one.ClearField("shutdown")
        return
    one.src_port, one.dst_port = placement.local.port, placement.remote.port
    one.src_addr[:] = _words(placement.local.address)
    one.dst_addr[:] = _words(placement.remote.address)
    if placement.state == ESTABLISHED:
        one.ClearField("shutdown")


def _address(family: int, words: Any) -> str:
    """Words of memory as the task's machine has them: the order of bytes is that of the network."""
    content = struct.pack(f"={len(words)}I", *words)
    return socket.inet_ntop(family, content[: 16 if family == socket.AF_INET6 else 4])


def _words(address: str) -> tuple[int, ...]:
    content = ipaddress.ip_address(address).packed
    return struct.unpack(f"={len(content) // 4}I", content)
