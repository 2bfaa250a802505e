"""What preflight gathers from a made-up /proc, and the kernel's lists of sockets."""

from __future__ import annotations

import os
import socket
from types import SimpleNamespace
from typing import TYPE_CHECKING

import attrs
import pytest

from snaplib.checkpoint.preflight import preflight
from snaplib.errors import TaskEnded
from snaplib.kernel.filesystems import file_system_magic
from snaplib.kernel.procfs import ProcFs
from snaplib.kernel.socketoptions import socket_protocol
from snaplib.kernel.sockets import TCP_LISTEN, list_sockets
from snaplib.testing.procfs import FakeDescriptor, FakeProc

if TYPE_CHECKING:
    from pathlib import Path

    from snaplib.kernel import ProcessStat

EVERYTHING = (socket.AF_UNIX, socket.AF_INET, socket.AF_INET6, socket.AF_NETLINK)


def obstacles(proc: FakeProc, pid: int, **options) -> dict[str, str]:
    task = SimpleNamespace(pid=pid, session=None)
    return {one.code: one.message for one in preflight(task, procfs=proc.procfs, **options)}


def test_a_made_up_task(tmp_path: Path) -> None:
    proc = FakeProc(tmp_path)
    proc.add(50, comm="bash")
    ring = FakeDescriptor("anon_inode:[io_uring]")
    pidfd = FakeDescriptor("anon_inode:[pidfd]", extra=("Pid:\t50", "NSpid:\t50"))
    pipe = FakeDescriptor("pipe:[7]", flags=os.O_WRONLY)
    proc.add(100, ppid=50, session=50, children=[101], descriptors={3: ring, 1: pipe})
    proc.add(101, ppid=100, session=50, descriptors={4: pidfd}, tracer_pid=60)
    proc.add(60, comm="gdb", descriptors={0: FakeDescriptor("pipe:[7]", flags=os.O_RDONLY)})
    found = obstacles(proc, 100)
    assert set(found) == {
        *("io-uring-descriptor", "pidfd-outside", "traced", "pipe-outside", "session-outside")
    }
    assert "pid 50 (bash)" in found["pidfd-outside"]
    assert "pid 60 (gdb)" in found["traced"]
    assert "pid 60 (gdb)" in found["pipe-outside"]
    assert "pipe-outside" not in obstacles(proc, 100, streams=["pipe:[7]"])


def test_a_child_born_after_the_members_were_listed_is_not_outside(tmp_path: Path) -> None:
    proc = FakeProc(tmp_path)
    proc.add(100, descriptors={3: FakeDescriptor("pipe:[7]", flags=os.O_WRONLY)})
    proc.add(102, ppid=100, descriptors={0: FakeDescriptor("pipe:[7]", flags=os.O_RDONLY)})
    assert "pipe-outside" not in obstacles(proc, 100)
    proc.add(60, descriptors={0: FakeDescriptor("pipe:[7]", flags=os.O_RDONLY)})
    assert "pid 60" in obstacles(proc, 100)["pipe-outside"]


def test_a_task_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(TaskEnded):
        obstacles(FakeProc(tmp_path), 100)


def test_one_that_ends_while_its_parents_are_looked_for_has_not_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is about to be reaped has no parent any more, and is in the list for a moment."""
    proc = FakeProc(tmp_path)
    proc.add(100, session=100)
    proc.add(102, ppid=1, session=100, comm="sh")
    assert "pid 102 (sh)" in obstacles(proc, 100)["orphan"]

    seen = 0

    def stat(procfs: ProcFs, pid: int) -> ProcessStat:
        nonlocal seen
        found = read(procfs, pid)
        seen += pid == 102
        if pid != 102 or seen == 1:
            return found
        return attrs.evolve(found, state="X", ppid=0, session=0)

    read = ProcFs.stat
    monkeypatch.setattr(ProcFs, "stat", stat)
    assert "orphan" not in obstacles(proc, 100)
    assert seen > 1


def test_unix_sockets_know_their_peers() -> None:
    one, other = socket.socketpair()
    with (
        one,
        other,
        socket.socket(socket.AF_UNIX) as server,
        socket.socket(socket.AF_UNIX) as client,
    ):
        name = f"\0snaplib-test-{os.getpid()}"
        server.bind(name)
        server.listen(23)
        client.connect(name)
        one.send(b"unread")
        inode = {each: os.fstat(each.fileno()).st_ino for each in (one, other, server, client)}
        table = list_sockets(EVERYTHING, {inode[one], inode[client]})
        assert table.families == set(EVERYTHING)
        assert table.by_inode[inode[one]].peer_inode == inode[other]
        # The peer comes unasked, and the server because it listens.
        assert table.by_inode[inode[other]].peer_inode == inode[one]
        assert table.by_inode[inode[other]].receive_queue > 0
        found = table.by_inode[inode[server]]
        assert (found.state, found.local) == (TCP_LISTEN, "@" + name[1:])
        assert len(found.pending_inodes) == 1
        assert socket_protocol("/proc/self", one.fileno()) == "UNIX-STREAM"
        descriptor = one.fileno()
    assert socket_protocol("/proc/self", descriptor) is None


@pytest.mark.parametrize(
    ("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]
)
def test_tcp_sockets_know_their_addresses(family: int, host: str) -> None:
    try:
        server = socket.create_server((host, 0), family=family)
    except OSError as error:
        pytest.skip(str(error))
    with server, socket.create_connection(server.getsockname()[:2]) as client:
        inodes = {os.fstat(each.fileno()).st_ino for each in (server, client)}
        found = list_sockets(EVERYTHING, inodes).by_inode
        assert set(found) >= inodes
        listening = found[os.fstat(server.fileno()).st_ino]
        connected = found[os.fstat(client.fileno()).st_ino]
        shown = f"[{host}]" if ":" in host else host
        assert listening.local == connected.remote == f"{shown}:{server.getsockname()[1]}"
        assert connected.local == f"{shown}:{client.getsockname()[1]}"
        assert (listening.state, listening.receive_queue) == (TCP_LISTEN, 1)


def test_the_list_agrees_with_proc_net(tmp_path: Path) -> None:
    pairs = [socket.socketpair() for _ in range(23)]
    inodes = {os.fstat(each.fileno()).st_ino for pair in pairs for each in pair}
    with open("/proc/net/unix") as file:  # noqa: PTH123
        told = {int(line.split()[6]) for line in file.readlines()[1:]}
    found = set(list_sockets((socket.AF_UNIX,), inodes).by_inode)
    assert found & inodes == told & inodes == inodes
    for pair in pairs:
        for each in pair:
            each.close()


def test_file_systems() -> None:
    assert file_system_magic("/proc/self/stat") == 0x9FA0
    with pytest.raises(FileNotFoundError, match="statfs"):
        file_system_magic("/nowhere")
