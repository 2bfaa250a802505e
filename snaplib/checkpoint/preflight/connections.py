"""TCP: connections that do not live on, or only where the task's address is, and servers that need theirs.

What CRIU dumps is in its criu/sk-inet.c and sk-tcp.c; what becomes of connections is decided in
`snaplib.checkpoint.connections`.
"""

from __future__ import annotations

import re
import socket
from typing import TYPE_CHECKING

from snaplib.checkpoint.preflight.scene import plain_address
from snaplib.kernel.sockets import TCP_LISTEN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from snaplib.checkpoint.preflight.obstacle import Obstacle
    from snaplib.checkpoint.preflight.scene import Member, Scene
    from snaplib.kernel.sockets import Socket

__all__ = ["check_tcp"]

#: States of net/tcp_states.h that CRIU dumps: established, both FIN waits, close, close wait, last
#: ACK, listen, closing. A connection still being made (SYN sent) is made anew by the restore.
_DUMPABLE = frozenset({1, 2, 4, 5, 7, 8, 9, 10, 11})
_CONNECTED = _DUMPABLE - {7, TCP_LISTEN}

#: Ports at which one speaks TLS from the first byte (IANA's registry of service names and ports).
_TLS_PORTS = frozenset(
    [443, 465, 563, 636, 853, 989, 990, 992, 993, 994, 995, 2376, 5061, 5671, 6443, 8443, 8883]
)
_TLS_LIBRARY = re.compile(r"/(lib(?:ssl|gnutls|nspr4|ssl3|mbedtls|wolfssl|s2n)[^/]*\.so[^/]*)$")
_ANY = ("0.0.0.0", "::")  # noqa: S104 - nothing is bound


def check_tcp(member: Member, scene: Scene) -> Iterator[Obstacle]:
    """Find TCP sockets that cannot be dumped, or depend on where the task is restored."""
    library = ""
    for fd, one in scene.sockets_of(member):
        if one.protocol != socket.IPPROTO_TCP or one.family not in (
            socket.AF_INET,
            socket.AF_INET6,
        ):
            continue
        if one.state not in _DUMPABLE:
            yield member.obstacle(
                "fatal",
                "tcp-state",
                f"fd {fd}",
                f"the connection {one.local} to {one.remote} is just being made or ended",
                "wait a moment and dump again",
            )
        elif one.state == TCP_LISTEN:
            yield from _check_server(member, fd, one, scene)
        elif one.state in _CONNECTED:
            library = library or _tls_library(member)
            yield from _check_connection(member, fd, one, scene, library)


def _check_server(member: Member, fd: int, one: Socket, scene: Scene) -> Iterator[Obstacle]:
    if one.receive_queue:
        dropped = scene.tcp == "auto"
        yield member.obstacle(
            "lost" if dropped else "fatal",
            "tcp-not-accepted",
            f"fd {fd}",
            f"the server {one.local} has {one.receive_queue} connection(s) to accept"
            + (", which are lost" if dropped else ""),
            "let the program accept them, and dump again",
        )
    address = _address(one.local)
    if address not in _ANY and not _is_loopback(address):
        yield member.obstacle(
            "warning",
            "tcp-server-address",
            f"fd {fd}",
            f"the server {one.local} listens at an address of this host, and a restore fails where that is not",
            "restore it where the address is, or have the program listen at all addresses (0.0.0.0 or ::)",
        )


def _check_connection(
    member: Member, fd: int, one: Socket, scene: Scene, library: str
) -> Iterator[Obstacle]:
    which = f"the connection {one.local} to {one.remote}"
    if scene.tcp == "close":
        yield member.obstacle(
            "lost",
            "tcp-closed",
            f"fd {fd}",
            f"{which} is closed after a restore",
            "none is needed if the program connects again; else keep it with --tcp auto",
        )
        return
    if fd in member.kernel_tls:
        yield member.obstacle(
            "fatal",
            "tcp-kernel-tls",
            f"fd {fd}",
            f"{which} is encrypted by the kernel (kTLS), which CRIU does not restore: it would go on in the clear",
            "have the program do without kTLS (OpenSSL: without SSL_OP_ENABLE_KTLS), or use --tcp close",
        )
    if (plain_address(one.remote), plain_address(one.local)) in scene.connections:
        return
    yield _outside(member, fd, one, scene, which)
    tls = _looks_like_tls(one, library)
    if tls:
        yield member.obstacle(
            "warning",
            "tcp-tls",
            f"fd {fd}",
            f"{which} looks like TLS ({tls}): its keys go into the snapshot, and of several tasks restored from it "
            "only one can go on with it",
            "encrypt the store; restore a snapshot once, or with --tcp close to have the program connect again",
        )


def _outside(member: Member, fd: int, one: Socket, scene: Scene, which: str) -> Obstacle:
    otherwise = "it is reset elsewhere" if scene.tcp == "auto" else "a restore fails elsewhere"
    mine, other = _address(one.local), _address(one.remote)
    if mine == other or _is_loopback(other):
        return member.obstacle(
            "warning",
            "tcp-host",
            f"fd {fd}",
            f"{which}, outside the task, lives on only on this host while the other end is there; {otherwise}",
            "run both ends within the task, or have the program connect again when it is reset",
        )
    return member.obstacle(
        "warning",
        "tcp-outside",
        f"fd {fd}",
        f"{which} lives on only where the restored task has the address {mine} and the peer has not given up; "
        + otherwise,
        "have the program connect again when it is reset, or use --tcp close",
    )


def _looks_like_tls(one: Socket, library: str) -> str:
    """Return why a connection looks like TLS; empty if it does not."""
    for text in (one.remote, one.local):
        port = int(text.rpartition(":")[2])
        if port in _TLS_PORTS:
            return f"port {port}"
    # Libraries are there for other connections as well: within a host TLS is rare.
    loopback = _is_loopback(_address(one.remote))
    return f"{library} is mapped" if library and not loopback else ""


def _tls_library(member: Member) -> str:
    for mapping in member.mappings:
        found = _TLS_LIBRARY.search(mapping.path)
        if found:
            return found[1]
    return ""


def _address(text: str) -> str:
    return plain_address(text).rpartition(":")[0].strip("[]")


def _is_loopback(address: str) -> bool:
    return address.startswith("127.") or address == "::1"
