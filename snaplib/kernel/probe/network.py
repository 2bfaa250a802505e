"""Trials of what saving connections takes: nftables to hold packets back, sock_diag to find them."""

from __future__ import annotations

import errno
import os
import socket
import struct

from snaplib.kernel.probe.trial import Failed, Trial
from snaplib.kernel.syscalls import CLONE_NEWNET, unshare

__all__ = ["TRIALS"]

# linux/netlink.h
_NETLINK_SOCK_DIAG = 4
_NETLINK_NETFILTER = 12
_NLM_F_REQUEST = 1
_NLM_F_ACK = 4
_NLM_F_DUMP = 0x300
_NLM_F_CREATE = 0x400
_NLMSG_ERROR = 2
_NLMSG_DONE = 3

# linux/netfilter/nfnetlink.h, linux/netfilter/nf_tables.h
_NFNL_MSG_BATCH_BEGIN = 16
_NFNL_MSG_BATCH_END = 17
_NFNL_SUBSYS_NFTABLES = 10
_NFT_MSG_NEWTABLE = 0
_NFTA_TABLE_NAME = 1
_NFPROTO_INET = 1

_SOCK_DIAG_BY_FAMILY = 20  # linux/sock_diag.h

_DEADLINE_S = 2.0


def _nftables() -> str:
    # A network namespace of its own: the table never exists where packets are.
    unshare(CLONE_NEWNET)
    name = b"snaplib\0"
    attribute = struct.pack("=HH", 4 + len(name), _NFTA_TABLE_NAME) + name
    batch = struct.pack("=BBH", 0, 0, socket.htons(_NFNL_SUBSYS_NFTABLES))
    table = struct.pack("=BBH", _NFPROTO_INET, 0, 0) + attribute
    kind = _NFNL_SUBSYS_NFTABLES << 8 | _NFT_MSG_NEWTABLE
    flags = _NLM_F_REQUEST | _NLM_F_CREATE | _NLM_F_ACK
    request = (
        _message(_NFNL_MSG_BATCH_BEGIN, _NLM_F_REQUEST, 1, batch)
        + _message(kind, flags, 2, table)
        + _message(_NFNL_MSG_BATCH_END, _NLM_F_REQUEST, 3, batch)
    )
    _ask(_NETLINK_NETFILTER, request)
    return "a table can be made"


def _sock_diag() -> str:
    # struct inet_diag_req_v2, linux/inet_diag.h: family protocol ext pad states id
    request = struct.pack("=BBBxI48x", socket.AF_INET, socket.IPPROTO_TCP, 0, 0xFFFFFFFF)
    _ask(
        _NETLINK_SOCK_DIAG,
        _message(_SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST | _NLM_F_DUMP, 1, request),
    )
    return "lists TCP sockets"


def _message(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    return struct.pack("=IHHII", 16 + len(body), kind, flags, sequence, 0) + body


def _ask(protocol: int, request: bytes) -> None:
    """Send a netlink request and raise what the kernel answers."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, protocol) as link:
        link.settimeout(_DEADLINE_S)
        link.sendto(request, (0, 0))
        answer = link.recv(65536)
    _, kind, *_ = struct.unpack_from("=IHHII", answer)
    if kind == _NLMSG_ERROR:
        (negative,) = struct.unpack_from("=i", answer, 16)
        if negative:
            number = -negative
            raise Failed(f"{errno.errorcode.get(number, number)}: {os.strerror(number)}")
    elif kind != _NLMSG_DONE and protocol == _NETLINK_NETFILTER:
        raise Failed(f"netlink answered with message {kind}")


TRIALS = (
    Trial(
        "nftables",
        _nftables,
        "load nf_tables (modprobe nf_tables) as root; without it connections cannot be kept",
    ),
    Trial("sock_diag", _sock_diag, "load inet_diag and tcp_diag (modprobe tcp_diag)"),
)
