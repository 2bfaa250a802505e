"""What another process's socket is set to, as far as it can be asked without its owner noticing."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING

from snaplib.kernel.syscalls import pidfd_getfd

if TYPE_CHECKING:
    from snaplib.kernel.procfs import ProcFs

__all__ = ["has_kernel_tls", "socket_protocol", "tcp_is_kernel_tls", "udp_is_corked"]

_UDP_CORK = 1  # linux/udp.h
_TCP_ULP = 31  # linux/tcp.h


def socket_protocol(process_folder: str, fd: int) -> str | None:
    """Return the kernel's name of the protocol of a socket: ``TCP``, ``UNIX-STREAM``, ``AF_VSOCK``.

    It is asked through /proc, so that the descriptor is not opened a second time.

    Args:
        process_folder: Such as ``/proc/1``.
        fd: The descriptor, which must be a socket's.

    Returns:
        The name, or None when the descriptor is not there any more.
    """
    try:
        name = os.getxattr(f"{process_folder}/fd/{fd}", "system.sockprotoname")
    except OSError:
        return None
    return name.rstrip(b"\0").decode("ascii", "replace")


def udp_is_corked(pid: int, fd: int) -> bool:
    """Return whether a UDP socket of another process gathers a datagram (UDP_CORK).

    Only the socket itself can be asked, so it is copied for a moment; its owner does not notice.
    """
    corked = _option_of(pid, fd, socket.IPPROTO_UDP, _UDP_CORK, 4)
    return any(corked)


def has_kernel_tls(procfs: ProcFs) -> bool:
    """Return whether any TCP socket can be encrypted by the kernel: whether it has what does it, or has loaded it."""
    try:
        text = (procfs.root / "sys/net/ipv4/tcp_available_ulp").read_text()
    except OSError:
        return False
    return "tls" in text.split()


def tcp_is_kernel_tls(pid: int, fd: int) -> bool:
    """Return whether the kernel encrypts another process's TCP socket (its Documentation/networking/tls.rst).

    Like `udp_is_corked`, it asks a copy of the socket.
    """
    return _option_of(pid, fd, socket.IPPROTO_TCP, _TCP_ULP, 16).rstrip(b"\0") == b"tls"


def _option_of(pid: int, fd: int, level: int, option: int, size: int) -> bytes:
    """Return an option of another process's socket; empty if it is closed by now, or not ours to look at."""
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        return b""
    try:
        with socket.socket(fileno=pidfd_getfd(pidfd, fd)) as copy:
            return copy.getsockopt(level, option, size)
    except OSError:
        return b""
    finally:
        os.close(pidfd)
