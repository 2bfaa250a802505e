"""The connections of a task that is being restored: locked until they are there, and settled where they go."""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Iterator
from pathlib import Path

from snaplib.checkpoint.connections import Fate, decide
from snaplib.checkpoint.netlock import lock_again, unlock
from snaplib.checkpoint.network import Network
from snaplib.criu import Criu
from snaplib.criu.connections import Endpoint, place_connections, read_connections
from snaplib.errors import SnapshotDamaged
from snaplib.kernel.interfaces import is_local
from snaplib.kernel.repair import connection_error
from snaplib.store import Snapshot

__all__ = ["are_closed", "locked_connections", "settle_connections"]


def are_closed(snapshot: Snapshot) -> bool:
    """Tell whether a snapshot was taken with its connections closed; nothing of them is in it then."""
    return bool(snapshot.extra.get("tcp") == "close")


@contextlib.contextmanager
def locked_connections(snapshot: Snapshot, tcp: str) -> Iterator[None]:
    """Lock a task's connections until CRIU has restored them, and takes the lock away.

    Where the task's address is here already, its peers would be told meanwhile that nobody is there.

    Args:
        snapshot: The task.
        tcp: What becomes of connections, one of `TCP_MODES`.
    """
    network = Network.read(snapshot.extra.get("network"))
    if tcp == "close" or network is None or not network.lock or not network.outside:
        yield
        return
    ends = [one for one in network.outside if not _is_taken(*one)]
    made = bool(ends) and lock_again(network.lock, ends)
    try:
        yield
    except BaseException:
        # One that was there before is for the next try.
        if made:
            unlock(network.lock)
        raise


def _is_taken(mine: Endpoint, other: Endpoint) -> bool:
    """Whether somebody here has the connection, such as the task itself, which ran on after it was saved."""
    if not is_local(mine.address):
        return False
    family = socket.AF_INET6 if ":" in mine.address else socket.AF_INET
    error = connection_error(family, mine.pair, other.pair)
    return error is not None and error.errno == errno.EADDRNOTAVAIL


def settle_connections(criu: Criu, snapshot: Snapshot, images: Path, tcp: str) -> list[Fate]:
    """Change the images of connections that cannot live on here, or shall not.

    Args:
        criu: The CRIU that will restore.
        snapshot: The task.
        images: Its images.
        tcp: What becomes of connections, one of `TCP_MODES`.

    Returns:
        What becomes of those that do not live on as they were.

    Raises:
        SnapshotDamaged: An image is damaged.
    """
    if tcp == "established" or are_closed(snapshot):
        return []
    try:
        connections = read_connections(criu, images)
        then, now = Network.read(snapshot.extra.get("network")), Network.here()
        fates = decide(
            connections,
            tcp,
            # An older snapshot does not tell.
            same_network=then is None or then.is_that_of(now),
            host_addresses=then.addresses if then else (),
        )
        changed = [one for one in fates if one.placement]
        placements = {one.connection.id: one.placement for one in changed if one.placement}
        place_connections(criu, images, placements)
    except ValueError as error:
        raise SnapshotDamaged(f"snapshot {snapshot.id} has a damaged image: {error}") from error
    return changed
