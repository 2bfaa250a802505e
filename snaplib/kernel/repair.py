"""Whether a TCP connection can be put in place here, found by putting it there for a moment.

A socket in repair mode (TCP_REPAIR of tcp(7), Linux kernel commit ee9952831cfd in v3.5) becomes connected without a
packet being sent, and is closed without one.
"""

from __future__ import annotations

import socket

__all__ = ["connection_error"]

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
