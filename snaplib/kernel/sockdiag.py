"""The conversation with sock_diag(7): which network namespace is asked, and messages with their attributes."""

from __future__ import annotations

import os
import socket
import struct
import threading

from snaplib.kernel.syscalls import CLONE_NEWNET, setns

__all__ = ["dump", "numbers", "open_diag", "read_attributes"]

_NETLINK_SOCK_DIAG = 4  # linux/netlink.h
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST = 0x001
_NLM_F_DUMP = 0x300
_NLM_F_DUMP_INTR = 0x010
_NLMSG_ERROR = 2
_NLMSG_DONE = 3
_HEADER = struct.Struct("=IHHII")  # length, type, flags, sequence, port
_ATTRIBUTE = struct.Struct("=HH")  # length, type
_RECEIVE_BYTES = 1 << 18
#: A list that changed while it was read is read again, but not for ever.
_ATTEMPTS = 3


def open_diag(namespace: str | None) -> socket.socket:
    """Return a socket to ask by.

    Args:
        namespace: Path of the network namespace to ask about, such as ``/proc/1/ns/net``; None for our own.

    Raises:
        OSError: The namespace cannot be entered.
    """
    if namespace is None:
        return _open()
    # A thread of its own enters the namespace and ends there; the socket stays in it.
    made: list[socket.socket | OSError] = []

    def enter_and_open() -> None:
        try:
            descriptor = os.open(namespace, os.O_RDONLY | os.O_CLOEXEC)
            try:
                setns(descriptor, CLONE_NEWNET)
            finally:
                os.close(descriptor)
            made.append(_open())
        except OSError as error:
            made.append(error)

    thread = threading.Thread(target=enter_and_open)
    thread.start()
    thread.join()
    if isinstance(made[0], OSError):
        raise made[0]
    return made[0]


def _open() -> socket.socket:
    return socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_SOCK_DIAG
    )


def dump(connection: socket.socket, request: bytes) -> list[bytes]:
    """Send a request and return the payloads of the answer's messages."""
    for attempt in range(1, _ATTEMPTS + 1):
        header = _HEADER.pack(
            _HEADER.size + len(request),
            _SOCK_DIAG_BY_FAMILY,
            _NLM_F_REQUEST | _NLM_F_DUMP,
            attempt,
            0,
        )
        connection.sendto(header + request, (0, 0))
        payloads, whole = _receive(connection)
        if whole:
            break
    return payloads


def _receive(connection: socket.socket) -> tuple[list[bytes], bool]:
    payloads: list[bytes] = []
    whole = True
    while True:
        answer = connection.recv(_RECEIVE_BYTES)
        offset = 0
        while offset + _HEADER.size <= len(answer):
            length, kind, flags, _, _ = _HEADER.unpack_from(answer, offset)
            payload = answer[offset + _HEADER.size : offset + length]
            whole = whole and not flags & _NLM_F_DUMP_INTR
            if kind in (_NLMSG_ERROR, _NLMSG_DONE):
                code = struct.unpack_from("=i", payload)[0] if len(payload) >= 4 else 0
                if code < 0:
                    raise OSError(-code, f"sock_diag: {os.strerror(-code)}")
                return payloads, whole
            payloads.append(payload)
            offset += (length + 3) & ~3


def read_attributes(payload: bytes, offset: int) -> dict[int, bytes]:
    """Return the attributes of a message, by their type.

    Args:
        payload: The message.
        offset: Where the first of them begins.
    """
    found: dict[int, bytes] = {}
    while offset + _ATTRIBUTE.size <= len(payload):
        length, kind = _ATTRIBUTE.unpack_from(payload, offset)
        if length < _ATTRIBUTE.size:
            break
        found[kind] = payload[offset + _ATTRIBUTE.size : offset + length]
        offset += (length + 3) & ~3
    return found


def numbers(content: bytes) -> tuple[int, ...]:
    """Return the 32-bit numbers of an attribute."""
    return struct.unpack(f"={len(content) // 4}I", content[: len(content) // 4 * 4])
