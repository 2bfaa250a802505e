"""Sockets: kinds CRIU does not know, unread data, connections that lead out of the task.

What CRIU dumps is in its criu/sockets.c, sk-inet.c, sk-tcp.c, sk-unix.c and sk-netlink.c.
"""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

from snaplib.kernel.sockets import TCP_ESTABLISHED, TCP_LISTEN

if TYPE_CHECKING:
    from collections.abc import Iterator

    from snaplib.checkpoint.preflight.obstacle import Obstacle
    from snaplib.checkpoint.preflight.scene import Member, Scene
    from snaplib.kernel.sockets import Socket

__all__ = ["check_kinds", "check_netlink", "check_udp", "check_unix", "outside_inodes"]

_UNIX_NAMES = frozenset({"UNIX", "UNIX-STREAM"})
_KNOWN_NAMES = _UNIX_NAMES | {
    *("TCP", "TCPv6", "UDP", "UDPv6", "UDP-Lite", "UDPLITEv6", "RAW", "RAWv6", "PING", "PINGv6"),
    *("NETLINK", "PACKET"),
}
_MPTCP_NAMES = frozenset({"MPTCP", "MPTCPv6"})

_BOTH_WAYS_SHUT = 3


def outside_inodes(scene: Scene) -> frozenset[int]:
    """Return the unix sockets outside the task to which it is connected, or wants to be."""
    ours = scene.socket_inodes
    found = set()
    for _, one in _every_socket(scene):
        if one.peer_inode and one.peer_inode not in ours:
            found.add(one.peer_inode)
    for one in scene.sockets.by_inode.values():
        if one.inode not in ours and ours.intersection(one.pending_inodes):
            found.add(one.inode)
    return frozenset(found)


def check_kinds(member: Member, scene: Scene) -> Iterator[Obstacle]:
    """Find sockets of families and protocols that CRIU does not know, or of another namespace."""
    for fd, name in member.sockets.items():
        inode = member.socket_inodes[fd]
        if name in _MPTCP_NAMES:
            yield _fatal(
                member,
                fd,
                "mptcp-socket",
                f"socket:[{inode}] speaks Multipath TCP, which CRIU cannot dump",
                "run the task with GODEBUG=multipathtcp=0, or without mptcpize",
            )
        elif name not in _KNOWN_NAMES:
            yield _fatal(
                member,
                fd,
                "socket-family",
                f"socket:[{inode}] is of the kind {name}, which CRIU cannot dump",
                "close it before the dump, or keep it in a process outside the task",
            )
        # All unix sockets are in the list of their network namespace.
        elif (
            name in _UNIX_NAMES
            and socket.AF_UNIX in scene.sockets.families
            and inode not in scene.sockets.by_inode
        ):
            yield _fatal(
                member,
                fd,
                "socket-of-other-namespace",
                f"socket:[{inode}] is of a network namespace in which the task is not",
                "close it before the dump",
            )


def check_udp(member: Member, scene: Scene) -> Iterator[Obstacle]:
    """Find UDP sockets that cannot be dumped, or lose something."""
    for descriptor in sorted(member.corked):
        yield _fatal(
            member,
            descriptor,
            "udp-corked",
            "a UDP socket that gathers a datagram (UDP_CORK), which CRIU cannot dump",
            "let the program send what it has gathered, and dump again",
        )
    for fd, one in scene.sockets_of(member):
        if one.protocol == socket.IPPROTO_UDP and one.receive_queue:
            yield member.obstacle(
                "lost",
                "udp-unread",
                f"fd {fd}",
                f"the datagrams that wait in the UDP socket {one.local} are not kept",
                "none is needed if the program can do without them, as with any lost datagram",
            )


def check_netlink(member: Member, scene: Scene) -> Iterator[Obstacle]:
    """Find netlink sockets with unread messages, or with more groups than CRIU keeps."""
    for fd, one in scene.sockets_of(member):
        if one.family != socket.AF_NETLINK:
            continue
        if one.receive_queue:
            yield _fatal(
                member,
                fd,
                "netlink-unread",
                f"a netlink socket (inode {one.inode}) with {one.receive_queue} bytes that have"
                " not been read",
                "let the program read them, and dump again",
            )
        if one.group_words > 1:
            yield _fatal(
                member,
                fd,
                "netlink-groups",
                f"a netlink socket (inode {one.inode}) in groups above 32",
                "close it before the dump",
            )


def check_unix(member: Member, scene: Scene) -> Iterator[Obstacle]:
    """Find unix sockets whose other end is outside the task."""
    ours = scene.socket_inodes
    waits_at = {
        waiting: one
        for one in scene.sockets.by_inode.values()
        for waiting in one.pending_inodes
        if waiting
    }
    for fd, one in scene.sockets_of(member):
        if one.family != socket.AF_UNIX:
            continue
        if one.peer_inode:
            if one.peer_inode not in ours:
                yield _outside_peer(member, fd, one, scene)
        elif one.state == TCP_LISTEN and 0 in one.pending_inodes:
            yield _fatal(
                member,
                fd,
                "unix-connection-closed",
                f"the server {one.local} has a connection to accept that is closed already",
                "let the program accept it, and dump again",
            )
        elif (
            one.kind != socket.SOCK_DGRAM
            and one.state == TCP_ESTABLISHED
            and one.shutdown != _BOTH_WAYS_SHUT
        ):
            yield from _check_waiting(member, fd, one, scene, waits_at.get(one.inode))


def _check_waiting(
    member: Member, fd: int, one: Socket, scene: Scene, server: Socket | None
) -> Iterator[Obstacle]:
    """Look at a unix connection that has no peer yet."""
    if server is None:
        yield _fatal(
            member,
            fd,
            "unix-dangling",
            f"a unix socket (inode {one.inode}) connected to nothing",
            "close it before the dump",
        )
    elif server.inode not in scene.socket_inodes:
        yield _fatal(
            member,
            fd,
            "unix-outside",
            f"a connection to {server.local}{_holder_text(scene, server.inode)}, outside the task",
            "close it before the dump, or run that server within the task",
        )
    elif one.send_queue:
        yield _fatal(
            member,
            fd,
            "unix-not-accepted",
            f"a connection to {server.local} that has sent data and is not accepted yet",
            "let the program accept it, and dump again",
        )


def _outside_peer(member: Member, fd: int, one: Socket, scene: Scene) -> Obstacle:
    assert one.peer_inode is not None
    peer = scene.sockets.by_inode.get(one.peer_inode)
    name = peer.local if peer else ""
    who = f"{name or 'a nameless socket'}{_holder_text(scene, one.peer_inode)}, outside the task"
    if one.kind == socket.SOCK_DGRAM and name:
        return member.obstacle(
            "warning",
            "unix-datagram-outside",
            f"fd {fd}",
            f"sends datagrams to {who}: a restore connects it again by that name",
            "see to it that the same service is there where the task is restored",
        )
    return _fatal(
        member,
        fd,
        "unix-outside",
        f"a connection with {who}",
        "close it before the dump, or run both ends within the task",
    )


def _holder_text(scene: Scene, inode: int) -> str:
    holders = scene.holders.get(f"socket:[{inode}]", ())
    return f" of {holders[0].name}" if holders else ""


def _every_socket(scene: Scene) -> Iterator[tuple[int, Socket]]:
    for member in scene.members.values():
        yield from scene.sockets_of(member)


def _fatal(member: Member, fd: int, code: str, message: str, remedy: str) -> Obstacle:
    return member.obstacle("fatal", code, f"fd {fd}", message, remedy)
