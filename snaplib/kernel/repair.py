"""Whether a TCP connection can be put in place here, found by putting it there for a moment; and how that ends.

A socket in repair mode (TCP_REPAIR of tcp(7), Linux kernel commit ee9952831cfd in v3.5) becomes connected without a
packet being sent, and is closed without one.
"""

from __future__ import annotations

import os
import socket

from snaplib.kernel.syscalls import pidfd_getfd

__all__ = ["connection_error", "end_repair"]

_TCP_REPAIR = 19  # linux/tcp.h

Endpoint = tuple[str, int]


def connection_error(family: int, local: Endpoint, remote: Endpoint) -> OSError | None:
    """Return what stands in the way of a connection in our network namespace; None where nothing does.

    Args:
        family: ``socket.AF_INET`` or ``AF_INET6``.
        local: Its own address and port: the address must be one of this host's.
        remote: The other side's, to which there must be a way.

    Returns:
        The error of bind(2), connect(2), or of what came before them: EADDRNOTAVAIL for an address that is not here
        or a connection that is there already, ENETUNREACH where there is no way, EPERM without CAP_NET_ADMIN.
    """
    try:
        with socket.socket(family, socket.SOCK_STREAM) as one:
            one.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR, 1)
            one.bind(local)
            one.connect(remote)
    except OSError as error:
        return error
    return None


def end_repair(pid: int, descriptor: int) -> None:
    """Let a TCP socket work again that was left in repair mode; one that was not stays as it is.

    Args:
        pid: Of a process that has it.
        descriptor: Its descriptor there.

    Raises:
        OSError: It is not there any more, or not for us to change.
    """
    pidfd = os.pidfd_open(pid)
    try:
        own = pidfd_getfd(pidfd, descriptor)
    finally:
        os.close(pidfd)
    with socket.socket(fileno=own) as one:
        if one.getsockopt(socket.IPPROTO_TCP, _TCP_REPAIR):
            one.setsockopt(socket.IPPROTO_TCP, _TCP_REPAIR, 0)
