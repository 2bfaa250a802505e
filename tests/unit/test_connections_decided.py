"""What becomes of TCP connections is decided from what can be put in place, whatever host that is."""

from __future__ import annotations

import errno
import socket
from collections.abc import Collection

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from snaplib.checkpoint import connections
from snaplib.checkpoint.connections import Fate, Trial, decide
from snaplib.checkpoint.network import Network
from snaplib.criu.connections import CLOSE_WAIT, ESTABLISHED, SYN_SENT, Connection, Endpoint

_FIN_WAIT2, _LAST_ACK = 5, 9


def on(addresses: Collection[str], taken: Collection[tuple[str, int]] = ()) -> Trial:
    """A host that has these addresses, and where some ends are taken already."""

    def trial(_family: int, local: tuple[str, int], _remote: tuple[str, int]) -> OSError | None:
        plain = local[0].removeprefix("::ffff:")
        if plain in addresses and (plain, local[1]) not in taken:
            return None
        return OSError(errno.EADDRNOTAVAIL, "Cannot assign requested address")

    return trial


LOOPBACK = ("127.0.0.1", "127.0.0.2", "::1")


def connection(
    local: str, remote: str, state: int = ESTABLISHED, number: int = 7, device: str = ""
) -> Connection:
    """A connection between ``ADDRESS PORT`` and another."""
    ends = [Endpoint(address, int(port)) for address, port in map(str.split, (local, remote))]
    family = socket.AF_INET6 if ":" in local else socket.AF_INET
    return Connection(number, family, state, ends[0], ends[1], device=device)


def decided(*found: Connection, trial: Trial, same: bool = False, tcp: str = "auto") -> list[Fate]:
    return decide(found, tcp, same_network=same, trial=trial)


OUT = connection("10.0.0.1 4000", "10.0.0.9 443")
LOCAL = connection("127.0.0.1 4000", "127.0.0.1 5432")


@pytest.mark.parametrize(
    ("one", "addresses", "same", "peer", "outcome"),
    [
        (OUT, ("10.0.0.1",), False, "elsewhere", "kept"),
        (OUT, ("10.0.0.2",), True, "elsewhere", "reset"),
        (LOCAL, (), True, "host", "kept"),
        (LOCAL, (), False, "host", "reset"),
        (connection("10.0.0.1 1", "10.0.0.1 2"), ("10.0.0.1",), False, "host", "reset"),
        (connection("::1 1", "::1 2"), (), False, "host", "reset"),
        (
            connection("::ffff:10.0.0.1 1", "::ffff:10.0.0.9 2"),
            ("10.0.0.1",),
            False,
            "elsewhere",
            "kept",
        ),
        (connection("127.0.0.1 1", "127.0.0.1 2", SYN_SENT), (), True, "host", "again"),
        (
            connection("10.0.0.1 1", "10.0.0.9 2", SYN_SENT),
            ("10.0.0.1",),
            True,
            "elsewhere",
            "kept",
        ),
        (connection("10.0.0.1 1", "10.0.0.9 2", SYN_SENT), (), True, "elsewhere", "again"),
        (
            connection("10.0.0.1 1", "10.0.0.9 2", device="no-such-device"),
            ("10.0.0.1",),
            True,
            "elsewhere",
            "reset",
        ),
    ],
)
def test_one_connection(
    one: Connection, addresses: tuple[str, ...], same: bool, peer: str, outcome: str
) -> None:
    (fate,) = decided(one, trial=on((*LOOPBACK, *addresses)), same=same)
    assert (fate.peer, fate.outcome) == (peer, outcome)
    assert (fate.placement is None) == (not fate.reason) == (outcome == "kept")


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (ESTABLISHED, ESTABLISHED),
        (_FIN_WAIT2, ESTABLISHED),
        (CLOSE_WAIT, CLOSE_WAIT),
        (_LAST_ACK, CLOSE_WAIT),
    ],
)
def test_where_it_leads_to_nobody(before: int, after: int) -> None:
    """What had been received stays, the end of it included; the port is not known to anybody."""
    one = connection("::ffff:10.0.0.1 4000", "::ffff:10.0.0.9 443", before)
    (fate,) = decided(one, trial=on(LOOPBACK))
    assert fate.placement is not None
    assert str(fate.placement.local) == "[::ffff:127.0.0.1]:4000"
    assert fate.placement.remote is not None
    assert fate.placement.remote.address == "::ffff:127.0.0.1"
    assert fate.placement.state == after


def test_two_of_one_port_are_not_put_in_one_place() -> None:
    """Those of a server have all the same port."""
    found = decided(
        connection("10.0.0.1 80", "10.0.0.8 1", number=1),
        connection("10.0.0.1 80", "10.0.0.9 1", number=2),
        connection("10.0.0.1 80", "10.0.0.9 2", number=3),
        trial=on(LOOPBACK),
    )
    places = {
        (str(one.placement.local), str(one.placement.remote)) for one in found if one.placement
    }
    assert len(places) == 3
    assert {one.outcome for one in found} == {"reset"}


def test_where_nothing_is_free() -> None:
    """Then it looks as if it had ended."""
    (fate,) = decided(connection("10.0.0.1 80", "10.0.0.8 1"), trial=on(()))
    assert fate.outcome == "reset"
    assert fate.placement is not None
    assert fate.placement.local is None
    assert fate.placement.ended


@pytest.mark.parametrize("disguise", ["", "::ffff:"])
def test_within_the_task(disguise: str) -> None:
    """Both ends agree on where they go, and stay where they are if they can."""
    both = (
        connection("10.0.0.1 80", "10.0.0.1 4000", number=1),
        connection(f"{disguise}10.0.0.1 4000", f"{disguise}10.0.0.1 80", number=2),
    )
    assert {one.outcome for one in decided(*both, trial=on(("10.0.0.1",)))} == {"kept"}
    server, client = decided(*both, trial=on(LOOPBACK, [("127.0.0.1", 4000)]))
    assert (server.peer, server.outcome, client.outcome) == ("task", "moved", "moved")
    assert server.placement
    assert client.placement
    assert str(server.placement.local) == "127.0.0.2:80"
    assert client.placement.local == Endpoint(f"{disguise}127.0.0.2", 4000)
    assert {one.outcome for one in decided(*both, trial=on(()))} == {"reset"}
    assert {one.outcome for one in decided(*both, trial=on(("10.0.0.1",)), tcp="close")} == {
        "reset"
    }


ADDRESSES = st.sampled_from(["10.0.0.1", "10.0.0.2", "127.0.0.1", "::1", "::ffff:10.0.0.1"])
PORTS = st.integers(1, 3)


@example(
    [("10.0.0.2", 1, "10.0.0.9", 1, 1), ("10.0.0.1", 1, "10.0.0.1", 1, 1)], {"127.0.0.1"}, False
)
@given(
    st.lists(
        st.tuples(ADDRESSES, PORTS, ADDRESSES, PORTS, st.sampled_from([1, 2, 5, 8])), max_size=8
    ),
    st.sets(st.sampled_from(["10.0.0.1", *LOOPBACK])),
    st.booleans(),
)
def test_no_two_in_one_place(
    found: list[tuple[str, int, str, int, int]], addresses: set[str], same: bool
) -> None:
    """Whatever they are, what is put somewhere can be there, and no two ends are at the same place."""
    unique = {
        one.ends: one
        for number, (local, port, remote, other, state) in enumerate(found)
        if (":" in local) == (":" in remote)
        for one in [connection(f"{local} {port}", f"{remote} {other}", state, number)]
    }
    trial = on(addresses)
    places = []
    with pytest.MonkeyPatch.context() as patch:
        # Enough for all of them, and not too many to try where none can be had.
        patch.setattr(connections, "_NOWHERE_PORTS", range(1, 12))
        fates = decided(*unique.values(), trial=trial, same=same)
    for fate in fates:
        local, remote = fate.connection.local, fate.connection.remote
        if fate.placement:
            if not fate.placement.local or not fate.placement.remote:
                continue
            local, remote = fate.placement.local, fate.placement.remote
        assert trial(fate.connection.family, local.pair, remote.pair) is None
        places.append((local.plain, remote.plain))
    assert len(set(places)) == len(places)


def test_networks() -> None:
    here = Network.here([OUT, LOCAL], "CRIU-0123-4567")
    assert here.addresses == ("127.0.0.1",)
    assert here.outside == (OUT.ends,)
    assert Network.read(here.record()) == here
    assert here.is_that_of(Network(here.boot_id, here.namespace))
    assert not here.is_that_of(Network("another", here.namespace))


@pytest.mark.parametrize(
    "lie",
    [
        {"namespace": "x"},
        {"addresses": 7},
        {"addresses": ["; flush ruleset"]},
        {"lock": "CRIU-0; flush ruleset"},
        {"lock": 7},
        {"outside": [["10.0.0.1", 1, "10.0.0.2"]]},
        {"outside": [["10.0.0.1", 65536, "10.0.0.2", 1]]},
        {"outside": [["10.0.0.1", "1 }", "10.0.0.2", 1]]},
        {"outside": [["x", 1, "10.0.0.2", 1]]},
    ],
)
def test_what_a_manifest_says_of_networks(lie: dict[str, object]) -> None:
    """It goes into a command for nft: only what is an address, a port and a name does."""
    record = Network.here([OUT], "CRIU-0123-4567").record()
    assert Network.read(record | lie) is None
    assert Network.read(None) is None
    assert Network.read({}) is None
