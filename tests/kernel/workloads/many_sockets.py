"""Holds more than a thousand TCP connections, in every state that a descriptor can show, and other sockets.

Prints the port of a listener all of whose connections are in TIME_WAIT.
"""

from __future__ import annotations

import contextlib
import ctypes
import resource
import socket
import struct
import sys
import time

EACH = int(sys.argv[1])
kept: list[socket.socket] = []


def listener(family: int = socket.AF_INET, backlog: int = 1024) -> socket.socket:
    one = socket.socket(family)
    one.bind(("::1" if family == socket.AF_INET6 else "127.0.0.1", 0))
    one.listen(backlog)
    kept.append(one)
    return one


def pair(server: socket.socket) -> tuple[socket.socket, socket.socket]:
    client = socket.socket(server.family)
    client.connect(server.getsockname())
    accepted, _ = server.accept()
    kept.extend((client, accepted))
    return client, accepted


def fill(one: socket.socket) -> None:
    """Send until nothing more fits on either side."""
    one.setblocking(False)
    for _ in range(3):
        with contextlib.suppress(BlockingIOError):
            while True:
                one.send(b"x" * 65536)
        time.sleep(0.001)


#: A filter that lets nothing through: BPF_RET | BPF_K with 0 (linux/filter.h).
NOTHING = ctypes.create_string_buffer(struct.pack("=HBBI", 0x06, 0, 0, 0))
SO_ATTACH_FILTER, SO_DETACH_FILTER = 26, 27


def deafen(one: socket.socket) -> None:
    """Have the kernel drop all that arrives for a socket, without an answer."""
    program = struct.pack("@HP", 1, ctypes.addressof(NOTHING))
    one.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)


def connecting(one: socket.socket, to: socket.socket) -> None:
    one.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        one.connect(to.getsockname())


def both_at_once(server: socket.socket) -> None:
    """Open and close connections from both ends at the same time, as far as the other's packets are lost."""
    # CLOSING: its own FIN is lost, the other's arrives. The other one stays in FIN_WAIT1.
    client, accepted = pair(server)
    deafen(accepted)
    client.shutdown(socket.SHUT_WR)
    accepted.shutdown(socket.SHUT_WR)
    # SYN_RECV: both connect, and one hears of it. The other one stays in SYN_SENT.
    one, other = socket.socket(), socket.socket()
    for end in (one, other):
        end.bind(("127.0.0.1", 0))
        deafen(end)
    connecting(one, other)
    one.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)
    connecting(other, one)
    kept.extend((one, other))


def time_wait() -> int:
    """Leave connections in TIME_WAIT behind; return the port they were accepted at."""
    server = listener()
    for _ in range(23):
        client = socket.create_connection(server.getsockname())
        accepted, _ = server.accept()
        accepted.close()
        client.close()
    return server.getsockname()[1]


def main() -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    server, server6 = listener(), listener(socket.AF_INET6)
    for number in range(EACH):
        # ESTABLISHED, with bytes waiting on one side.
        client, _ = pair(server6 if number % 3 == 0 else server)
        client.send(b"y" * (number % 50))
        # FIN_WAIT2 and CLOSE_WAIT.
        client, _ = pair(server)
        client.shutdown(socket.SHUT_WR)
        # The same with unread bytes.
        client, accepted = pair(server)
        accepted.send(b"z" * 23)
        client.shutdown(socket.SHUT_WR)
        # CLOSE: both sides have said that they are done.
        if number % 10 == 0:
            client, accepted = pair(server)
            client.shutdown(socket.SHUT_WR)
            accepted.recv(1)
            accepted.shutdown(socket.SHUT_WR)
        # FIN_WAIT1: the FIN waits behind bytes for which there is no room. LAST_ACK likewise.
        if number % 20 == 0:
            client, _ = pair(server)
            fill(client)
            client.shutdown(socket.SHUT_WR)
            client, accepted = pair(server)
            fill(accepted)
            client.shutdown(socket.SHUT_WR)
            accepted.shutdown(socket.SHUT_WR)
            both_at_once(server)
    # SYN_SENT: nobody accepts and the backlog is full.
    full = listener(backlog=0)
    for _ in range(10):
        one = socket.socket()
        one.setblocking(False)
        with contextlib.suppress(BlockingIOError):
            one.connect(full.getsockname())
        kept.append(one)
    for family, address in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
        receiver, sender = (
            socket.socket(family, socket.SOCK_DGRAM),
            socket.socket(family, socket.SOCK_DGRAM),
        )
        receiver.bind((address, 0))
        sender.connect(receiver.getsockname())
        sender.send(b"d" * 100)
        kept.extend((receiver, sender))
    for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_SEQPACKET):
        for size in (0, 1, 1000):
            one, other = socket.socketpair(socket.AF_UNIX, kind)
            if size:
                one.send(b"u" * size)
                one.send(b"u" * 7)
            kept.extend((one, other))
    named = socket.socket(socket.AF_UNIX)
    named.bind("\0snaplib-test-" + str(time.monotonic_ns()))
    named.listen(5)
    waiting = socket.socket(socket.AF_UNIX)
    waiting.connect(named.getsockname())
    kept.extend((named, waiting))
    port = time_wait()
    print("ready", flush=True)
    print(port, flush=True)
    sys.stdin.readline()


main()
