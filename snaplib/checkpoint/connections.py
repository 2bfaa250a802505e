"""What becomes of a task's TCP connections where it is restored.

With ``auto`` it is decided for each of them, there and then:

- one whose both ends are in the task lives on, on the loopback where its addresses are not here;
- one to a process outside on the same host lives on only there, in the network namespace it was in;
- one to elsewhere lives on where its own address is, with a way to the other.

Any other is *reset*: CRIU's image is changed so that it leads from the loopback to a port of the loopback where nobody
knows of it.  What had been received can still be read; then the kernel itself answers that there is no such
connection, and the task finds it lost (ECONNRESET) as it would have had its peer gone away.  It does not look like the
peer's own end (end of file), which a program could take for the end of its data.
"""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Collection, Iterator, Sequence

import attrs

from snaplib.criu.connections import (
    CLOSE_WAIT,
    ESTABLISHED,
    SYN_SENT,
    Connection,
    Endpoint,
    Placement,
)
from snaplib.kernel.repair import connection_error

__all__ = ["TCP_MODES", "Fate", "decide", "is_within_host"]

TCP_MODES = ("auto", "established", "close")

#: Where connections that are reset lead: nobody has a socket that is connected from there.
_NOWHERE_PORTS = range(1, 1024)
#: States in which the other side has sent its last: CLOSE_WAIT, LAST_ACK and CLOSING.
_RECEIVED_ALL = frozenset({CLOSE_WAIT, 9, 11})
#: How many addresses of the loopback are tried for a connection within the task.
_LOOPBACKS = 8

Ends = tuple[Endpoint, Endpoint]
Trial = Callable[[int, tuple[str, int], tuple[str, int]], OSError | None]


@attrs.frozen
class Fate:
    """What becomes of one connection.

    Attributes:
        connection: The connection.
        peer: Where its other end is: ``task``, ``host`` or ``elsewhere``.
        outcome: ``kept``, ``moved`` to the loopback, ``reset``, or ``again``: it is still being made, and is made anew.
        reason: Why it is not kept; empty if it is.
        placement: How it is to be restored; None as it was.
    """

    connection: Connection
    peer: str
    outcome: str = "kept"
    reason: str = ""
    placement: Placement | None = None

    def figures(self) -> dict[str, str]:
        """Return what events tell of it."""
        return {
            "local": str(self.connection.local),
            "remote": str(self.connection.remote),
            "peer": self.peer,
            "outcome": self.outcome,
            "reason": self.reason,
        }

    def __str__(self) -> str:
        return "connection {local} to {remote}: {outcome}, {reason}".format(**self.figures())


def decide(
    connections: Sequence[Connection],
    tcp: str,
    *,
    same_network: bool,
    host_addresses: Collection[str] = (),
    trial: Trial = connection_error,
) -> list[Fate]:
    """Decide what becomes of connections.

    Args:
        connections: Those of the task.
        tcp: ``auto``, or ``close`` to reset all of them.
        same_network: Whether the task was in the same network namespace of the same host.
        host_addresses: Addresses of the host that it was on, as far as connections led to them.
        trial: Tells what stands in the way of a connection.

    Returns:
        A fate for each, in the same order.
    """
    decision = _Decision(connections, tcp, same_network, frozenset(host_addresses), trial)
    return [decision.of(one) for one in connections]


@attrs.define
class _Decision:
    """What has been decided so far."""

    connections: Sequence[Connection]
    tcp: str
    same_network: bool
    host_addresses: frozenset[str]
    trial: Trial
    #: Where a connection of the task was, or will be.
    _taken: set[Ends] = attrs.field(init=False)
    #: Where connections within the task go: an address, empty where they stay, None where they cannot be.
    _moves: dict[Ends, str | None] = attrs.field(factory=dict, init=False)
    #: Where connections of a port may lead that are reset, by whether it is of IPv6; each is taken once.
    _nowhere: dict[tuple[bool, int], Iterator[Ends]] = attrs.field(factory=dict, init=False)
    _ends: frozenset[Ends] = attrs.field(init=False)

    def __attrs_post_init__(self) -> None:
        self._ends = frozenset(one.ends for one in self.connections)
        self._taken = set(self._ends)

    def of(self, one: Connection) -> Fate:
        """Decide what becomes of a connection."""
        mine, other = one.ends
        if (other, mine) in self._ends:
            peer = "task"
        else:
            peer = "host" if is_within_host(one, self.host_addresses) else "elsewhere"
        if self.tcp == "close":
            return self._lost(one, peer, "as was asked for")
        return self._within(one) if peer == "task" else self._outside(one, peer)

    def _outside(self, one: Connection, peer: str) -> Fate:
        if peer == "host" and not self.same_network:
            return self._lost(one, peer, "its peer was on another host")
        error = self._error(one)
        if error:
            return self._lost(one, peer, error)
        if one.state == SYN_SENT and peer == "host":
            # CRIU connects it, and could be refused at once.
            return self._lost(one, peer, "it was just being made")
        return Fate(one, peer)

    def _within(self, one: Connection) -> Fate:
        """Keep a connection of the task with itself, at other addresses if need be, which both ends must agree on."""
        mine, other = one.ends
        error = self._error(one)
        if (mine, other) not in self._moves:
            back = self.trial(one.family, one.remote.pair, one.local.pair)
            address = self._free_loopback(one) if error or back else ""
            self._moves[mine, other] = self._moves[other, mine] = address
        address = self._moves[mine, other]
        if address == "":
            return Fate(one, "task")
        why = error or "its other end cannot be put in place here"
        if address is None or one.state == SYN_SENT:
            return self._lost(one, "task", why)
        local, remote = Endpoint(address, mine.port), Endpoint(address, other.port)
        self._taken |= {(local, remote), (remote, local)}
        placement = Placement(_dressed(one, local), _dressed(one, remote), one.state)
        return Fate(one, "task", "moved", why, placement)

    def _free_loopback(self, one: Connection) -> str | None:
        """Find an address of the loopback between two ports of which there is no connection."""
        mine, other = one.ends
        for address in _loopbacks(one):
            local, remote = Endpoint(address, mine.port), Endpoint(address, other.port)
            if self._is_free(one, local, remote) and self._is_free(one, remote, local):
                return address
        return None

    def _lost(self, one: Connection, peer: str, why: str) -> Fate:
        if one.state == SYN_SENT:
            return Fate(one, peer, "again", why, Placement(ended=False))
        version = ":" in one.local.plain.address
        places = self._nowhere.setdefault((version, one.local.port), _nowhere(one))
        for local, remote in places:
            if self._is_free(one, local, remote):
                self._taken.add((local, remote))
                state = CLOSE_WAIT if one.state in _RECEIVED_ALL else ESTABLISHED
                placement = Placement(_dressed(one, local), _dressed(one, remote), state)
                return Fate(one, peer, "reset", why, placement)
        return Fate(one, peer, "reset", why, Placement())

    def _is_free(self, one: Connection, local: Endpoint, remote: Endpoint) -> bool:
        if (local, remote) in self._taken:
            return False
        ends = _dressed(one, local).pair, _dressed(one, remote).pair
        return self.trial(one.family, *ends) is None

    def _error(self, one: Connection) -> str:
        """Return what stands in the way of a connection as it was; empty if nothing does."""
        if one.device:
            try:
                socket.if_nametoindex(one.device)
            except OSError:
                return f"this host has no network interface {one.device}"
        error = self.trial(one.family, one.local.pair, one.remote.pair)
        if error is None:
            return ""
        if error.errno == errno.EADDRNOTAVAIL:
            return f"{one.local} is not, or is no more, to be had on this host"
        return f"it cannot be put in place on this host: {error.strerror}"


def is_within_host(one: Connection, host_addresses: Collection[str] = ()) -> bool:
    """Tell whether a connection leads to the host that it comes from.

    Args:
        one: The connection.
        host_addresses: What is known of the host's addresses.
    """
    mine, other = one.ends
    return (
        other.address == mine.address
        or other.address.startswith("127.")
        or other.address == "::1"
        or other.address in host_addresses
    )


def _loopbacks(one: Connection) -> Iterator[str]:
    if ":" in one.local.plain.address:
        yield "::1"
        return
    for number in range(1, _LOOPBACKS + 1):
        yield f"127.0.0.{number}"


def _nowhere(one: Connection) -> Iterator[Ends]:
    for address in _loopbacks(one):
        for port in _NOWHERE_PORTS:
            yield Endpoint(address, one.local.port), Endpoint(address, port)


def _dressed(one: Connection, plain: Endpoint) -> Endpoint:
    """Give an IPv4 address the guise of IPv6 where the socket has it."""
    mapped = ":" in one.local.address and ":" not in plain.address
    return Endpoint(f"::ffff:{plain.address}", plain.port) if mapped else plain
