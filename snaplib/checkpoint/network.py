"""Which network a task was in when it was saved, for the connections that live on only there."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import attrs

from snaplib.criu.connections import Connection, Endpoint
from snaplib.kernel.interfaces import is_local

__all__ = ["Network"]

Ends = tuple[Endpoint, Endpoint]

#: How many connections a manifest names.
_MOST = 4096
_PORT_MAX = 65535
#: What a manifest says goes into a command for nft.
_LOCK = re.compile(r"(CRIU-[0-9a-f-]{1,32})?")


@attrs.frozen
class Network:
    """A network namespace.

    Attributes:
        boot_id: Of the kernel that runs it.
        namespace: Its inode.
        addresses: Those of the host to which the task is connected.
        lock: Name of the table that locks its connections; empty without one.
        outside: Both sides of its connections to elsewhere, the task's own first.
    """

    boot_id: str
    namespace: int
    addresses: tuple[str, ...] = ()
    lock: str = ""
    outside: tuple[Ends, ...] = ()

    @classmethod
    def here(cls, connections: Iterable[Connection] = (), lock: str = "") -> Network:
        """Return that of this thread.

        Args:
            connections: Those of the task.
            lock: Name of the table that locks them.
        """
        boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        ends = [one.ends for one in connections]
        addresses = tuple(sorted(filter(is_local, {other.address for _mine, other in ends})))
        outside = tuple(one for one in ends if one[1].address not in addresses)
        namespace = Path("/proc/thread-self/ns/net").stat().st_ino
        # A server of very many is not locked before its restore.
        return cls(boot_id, namespace, addresses, lock, outside if len(outside) <= _MOST else ())

    @classmethod
    def read(cls, record: Any) -> Network | None:
        """Return what a manifest says of it; None where that is nothing of use."""
        if not isinstance(record, Mapping):
            return None
        try:
            return cls(
                boot_id=str(record["boot_id"]),
                namespace=int(record["namespace"]),
                addresses=tuple(str(ipaddress.ip_address(one)) for one in record["addresses"]),
                lock=_lock(record["lock"]),
                outside=tuple(
                    (_endpoint(address, port), _endpoint(other, other_port))
                    for address, port, other, other_port in record["outside"]
                ),
            )
        except (KeyError, TypeError, ValueError):
            return None

    def is_that_of(self, other: Network) -> bool:
        """Tell whether another is the same network."""
        return (self.boot_id, self.namespace) == (other.boot_id, other.namespace)

    def record(self) -> dict[str, Any]:
        """Return what manifests have of it."""
        return {
            "boot_id": self.boot_id,
            "namespace": self.namespace,
            "addresses": list(self.addresses),
            "lock": self.lock,
            "outside": [[*mine.pair, *other.pair] for mine, other in self.outside],
        }


def _lock(text: Any) -> str:
    if not _LOCK.fullmatch(text):
        raise ValueError(f"{text!r} is no lock of CRIU's")
    return str(text)


def _endpoint(address: Any, port: Any) -> Endpoint:
    if not isinstance(port, int) or not 0 < port <= _PORT_MAX:
        raise ValueError(f"{port!r} is no port")
    return Endpoint(str(ipaddress.ip_address(address)), port)
