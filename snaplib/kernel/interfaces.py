"""Network interfaces of our network namespace, and their addresses (netdevice(7))."""

from __future__ import annotations

import fcntl
import socket
import struct

__all__ = ["is_local", "is_up"]

_SIOCGIFFLAGS = 0x8913  # linux/sockios.h
_IFF_UP = 1  # linux/if.h
_REQUEST = struct.Struct("=16sH14x")  # struct ifreq: name, flags; 32 bytes or more


def is_local(address: str) -> bool:
    """Tell whether an address is one of this host's, in our network namespace.

    Args:
        address: Of IPv4 or IPv6.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as one:
            one.bind((address, 0))
    except OSError:
        return False
    return True


def is_up(name: str) -> bool:
    """Tell whether there is a network interface that is up.

    Args:
        name: Of the interface.
    """
    request = _REQUEST.pack(name.encode(), 0) + bytes(8)
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
            answer = fcntl.ioctl(one, _SIOCGIFFLAGS, request)
    except OSError:
        return False
    return bool(_REQUEST.unpack_from(answer)[1] & _IFF_UP)
