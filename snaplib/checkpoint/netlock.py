"""CRIU's network lock: which packets it drops, and for how long.

While a task is dumped CRIU drops the packets of its TCP connections, with rules in an nftables table of its own, and
leaves them in place when the task has ended: until it is restored nobody may answer for it, or its peers would be told
that their connections are gone.  CRIU takes the table away when the task runs on, and when it is restored in the same
network namespace.

Where neither happens the lock would stand for ever, and drop the packets of whoever gets the same ports next.  So
before the task ends the table is replaced, in one transaction, by one of the same name whose entries the kernel itself
forgets after a while, whatever becomes of us.  What is left of a lock that has run out is taken away by the next dump
or restore on this host.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path

from snaplib.criu import Criu
from snaplib.criu.connections import Connection, Endpoint, read_connections

__all__ = [
    "LOCK_S",
    "limit_lock",
    "lock_again",
    "lock_name",
    "locked_connections",
    "remove_empty_lock",
    "remove_old_locks",
    "standing_locks",
    "unlock",
]

Ends = tuple[Endpoint, Endpoint]

#: How long the connections of a task that has ended stay locked: as long as a peer whose packets are not answered
#: tries again (tcp_retries2 in the kernel's Documentation/networking/ip-sysctl.rst: 924.6 s).
LOCK_S = 930

#: CRIU's run id, a UUID in the inventory image; the table is named after its first 21 characters
#: (CRIU: criu/netfilter.c).
_RUN_ID = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
_ID_CHARACTERS = 21
#: The mark of packets that CRIU itself sends while it restores connections (CRIU: soccr/soccr.h).
_MARK = 0xC114
_NFT_TIMEOUT_S = 10.0
#: How a set says that its elements end by themselves; CRIU's own have no such line.
_LIMIT = re.compile(r"^\s+timeout \d", re.MULTILINE)
#: An element of a set: where packets come from, and where they go.
_ELEMENT = re.compile(r"([0-9a-f.:]+) \. (\d+) \. ([0-9a-f.:]+) \. (\d+)")

_TABLE = """
table inet {name} {{
{sets}
	chain output {{
		type filter hook output priority 0;
		meta mark {mark} accept
{rules}
	}}
	chain input {{
		type filter hook input priority 0;
		meta mark {mark} accept
{rules}
	}}
}}
"""
_SET = """
	set {name} {{
		type {type} . inet_service . {type} . inet_service
		flags timeout
		timeout {seconds}s
		elements = {{ {elements} }}
	}}
"""


def locked_connections(criu: Criu, images: Path) -> tuple[Connection, ...]:
    """Return the connections that a dump has locked.

    Args:
        criu: The CRIU that dumps.
        images: Its images, complete.
    """
    # The image of all files of a large task takes a while to read.
    if next(images.glob("tcp-stream-*.img"), None) is None:
        return ()
    return read_connections(criu, images)


def limit_lock(images: Path, connections: Iterable[Connection]) -> None:
    """Have the lock of a dump end by itself.

    Args:
        images: CRIU's images, complete.
        connections: Those that are locked.
    """
    name = lock_name(images)
    if name is not None:
        table = _limited(name, [one.ends for one in connections])
        _nft("-f", "-", script=f"delete table inet {name}\n{table}")


def lock_again(name: str, ends: Sequence[Ends]) -> bool:
    """Lock the connections of a task that is about to be restored, until it is.

    Where its address is already here, nobody else must answer for it.

    Args:
        name: Of the table, by which CRIU takes it away.
        ends: Both sides of each connection, the task's own first.

    Returns:
        Whether it was made now, and was not there.
    """
    table = _limited(name, ends)
    return _nft("-f", "-", script=f"create table inet {name}\n{table}") is not None


def unlock(name: str) -> None:
    """Take a lock away; that it is not there is as good.

    Args:
        name: Of the table.
    """
    _nft("delete", "table", "inet", name)


def remove_empty_lock(images: Path) -> None:
    """Remove the table of a dump that had no connections to lock, which every packet would pass from then on.

    Args:
        images: CRIU's images of a task that has ended.
    """
    name = lock_name(images)
    if name is not None:
        unlock(name)


def remove_old_locks() -> None:
    """Remove the tables of locks that have ended by themselves."""
    for name, text in _tables().items():
        if _LIMIT.search(text) and "elements" not in text:
            unlock(name)


def standing_locks() -> dict[str, set[tuple[str, str]]]:
    """Return what tables lock that do not end by themselves, by their names: source and target, both ways."""
    return {
        name: {(_place(*one[:2]), _place(*one[2:])) for one in _ELEMENT.findall(text)}
        for name, text in _tables().items()
        if not _LIMIT.search(text)
    }


def _tables() -> dict[str, str]:
    names = re.findall(r"^table inet (CRIU-\S+)$", _nft("list", "tables") or "", re.MULTILINE)
    return {name: _nft("list", "table", "inet", name) or "" for name in names}


def _place(address: str, port: str) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"


def _limited(name: str, ends: Iterable[Ends]) -> str:
    """Return a table whose entries end by themselves."""
    elements: dict[int, dict[str, None]] = {4: {}, 6: {}}
    for mine, other in ends:
        # Packets that come, and those that go.
        for source, target in ((other, mine), (mine, other)):
            text = f"{source.address} . {source.port} . {target.address} . {target.port}"
            elements[6 if ":" in source.address else 4][text] = None
    sets, rules = [], []
    for version, found in elements.items():
        if found:
            kind, protocol = f"ipv{version}_addr", "ip" if version == 4 else "ip6"
            sets.append(
                _SET.format(
                    name=f"conns{version}", type=kind, seconds=LOCK_S, elements=", ".join(found)
                )
            )
            rules.append(
                f"\t\t{protocol} saddr . tcp sport . {protocol} daddr . tcp dport @conns{version} drop"
            )
    return _TABLE.format(name=name, sets="".join(sets), rules="\n".join(rules), mark=_MARK)


def lock_name(images: Path) -> str | None:
    """Return the name of a dump's table; None where the images do not tell.

    Args:
        images: CRIU's images.
    """
    try:
        found = _RUN_ID.search((images / "inventory.img").read_bytes())
    except FileNotFoundError:
        return None
    return f"CRIU-{found[0].decode()[:_ID_CHARACTERS]}" if found else None


def _nft(*arguments: str, script: str = "") -> str | None:
    """Run nft, and return what it prints; None where it fails or is not installed."""
    program = shutil.which("nft") or shutil.which("nft", path="/usr/sbin:/sbin")
    if program is None:
        return None
    try:
        done = subprocess.run(
            [program, *arguments],
            input=script,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_NFT_TIMEOUT_S,
            check=False,
            text=True,
        )
    except subprocess.TimeoutExpired:
        return None
    return done.stdout if done.returncode == 0 else None
