"""What a watch says against what is surely so: events that were counted out, /proc, ss(8)."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import attrs
import pytest

from snaplib.kernel import ProcFs
from snaplib.kernel.bpf.btf import Btf
from snaplib.observe import FaultCounts, Watch

WORKLOADS = Path(__file__).parents[1] / "workloads"

TIMES = 23

#: An emulated machine bears less.
IN_GUEST = os.environ.get("SNAPLIB_GUEST") == "1"


@pytest.fixture(autouse=True)
def _needs(require) -> None:
    require("bpf_program", "bpf_raw_tracepoint", "btf")


@pytest.fixture(scope="session")
def exact(tmp_path_factory) -> Path:
    """The workload that does 23 of a thing. Static: no symbol is looked up while it counts."""
    program = tmp_path_factory.mktemp("exact") / "exact"
    source = WORKLOADS / "exact.c"
    subprocess.run(["gcc", "-O1", "-static", "-pthread", "-o", program, source], check=True)
    return program


def _faults(**expected: int):
    def difference(before, after):
        were, are = attrs.asdict(before.faults), attrs.asdict(after.faults)
        return {name: are[name] - were[name] for name in expected}, expected

    return difference


def _counts(**expected: int):
    def difference(before, after):
        were, are = attrs.asdict(before.counts), attrs.asdict(after.counts)
        return {name: are[name] - were[name] for name in expected}, expected

    return difference


def _states(before, after):
    were, are = dict(before.counts.tcp_changes), dict(after.counts.tcp_changes)
    seen = {state: are[state] - were.get(state, 0) for state in are}
    # A connection has two ends. TIME_WAIT is told as CLOSE; a half-open one comes from no state.
    expected = {
        "LISTEN": 1,
        "SYN_SENT": TIMES,
        "SYN_RECV": TIMES,
        "ESTABLISHED": 2 * TIMES,
        "FIN_WAIT1": TIMES,
        "FIN_WAIT2": TIMES,
        "CLOSE_WAIT": TIMES,
        "LAST_ACK": TIMES,
        "CLOSE": 2 * TIMES + 1,
    }
    return seen, expected


@pytest.mark.parametrize(
    ("letter", "difference"),
    [
        ("w", _faults(user_writes=TIMES, user_reads=0, user_protected=0, kernel_writes=0)),
        ("r", _faults(user_reads=TIMES, user_protected=TIMES, user_writes=0)),
        ("k", _faults(kernel_writes=TIMES, user_writes=0, user_reads=0)),
        ("w", _counts(forks=0, execs=0, exits=0, threads_started=0)),
        ("t", _counts(threads_started=TIMES, threads_ended=TIMES, forks=0, exits=0)),
        ("f", _counts(forks=TIMES, exits=TIMES, execs=0, threads_started=0)),
        ("e", _counts(forks=TIMES, exits=TIMES, execs=TIMES, threads_started=0)),
        ("n", _states),
    ],
)
def test_23_are_seen_as_23(start, exact, letter, difference) -> None:
    workload = start.command(str(exact))
    with Watch(workload.task, 60.0, arm="none", source="ebpf") as watch:
        workload.do(letter)  # once before, for what is touched by doing it at all
        before = watch._profiler.take()
        workload.do(letter)
        after = watch._profiler.take()
    seen, expected = difference(before, after)
    assert seen == expected
    # Of other programs' interrupts in the middle of ours the kernel leaves a run out, and tells; seldom, but it does.
    assert after.losses.total == after.losses.runs


def test_fresh_pages_grow_memory_by_as_many(start, exact) -> None:
    """The kernel's own count of changes: 23 pages come, and go at once."""
    workload = start.command(str(exact))
    with Watch(workload.task, 60.0, arm="none", source="ebpf") as watch:
        workload.do("w")
        before = watch._profiler.take()
        workload.do("w")
        after = watch._profiler.take()
    assert after.counts.anon_changes - before.counts.anon_changes == TIMES + 1
    assert after.counts.shmem_changes == before.counts.shmem_changes


GIVEN = """
import socket, sys
print('ready')
for line in sys.stdin:
    exec(line)
    print('done')
"""


def test_a_socket_that_a_member_was_given_is_learned(start, tmp_path) -> None:
    """It was neither connected nor accepted by a member: whose it is is known once it was listed."""
    workload = start(GIVEN)
    with (
        contextlib.closing(socket.socket(socket.AF_UNIX)) as door,
        contextlib.closing(socket.create_server(("127.0.0.1", 0))) as server,
        Watch(workload.task, 60.0, arm="none", source="ebpf") as watch,
    ):
        door.bind(str(tmp_path / "door"))
        door.listen()
        workload.do(f"u = socket.socket(socket.AF_UNIX); u.connect({str(tmp_path / 'door')!r})")
        with door.accept()[0] as connection:
            with socket.create_connection(server.getsockname()) as client:
                socket.send_fds(connection, [b"x"], [client.fileno()])
                workload.do("given = socket.socket(fileno=socket.recv_fds(u, 1, 1)[1][0])")
            accepted, _ = server.accept()
        for _ in range(3):
            profile = watch._profiler.take()
        assert profile.sockets.by_state() == {"ESTABLISHED": 1}
        assert not dict(profile.counts.tcp_changes)
        workload.do("given.close()")
        after = watch._profiler.take()
        accepted.close()
    assert dict(after.counts.tcp_changes)["FIN_WAIT1"] == 1
    assert after.losses.total == 0


def test_every_event_is_listed(start, exact) -> None:
    workload = start.command(str(exact))
    with Watch(workload.task, 60.0, arm="none", source="ebpf") as watch:
        workload.do("e")
        events = watch._profiler.take().events
    children = [one.child_pid for one in events if one.kind == "fork"]
    assert len(set(children)) == TIMES
    assert [one.pid for one in events if one.kind == "exec"] == children
    assert sorted(one.pid for one in events if one.kind == "exit") == sorted(children)
    assert [one.time_s for one in events] == sorted(one.time_s for one in events)


def test_counts_of_members_that_ended_are_kept(start, exact) -> None:
    workload = start.command(str(exact))
    with Watch(workload.task, 60.0, arm="none", source="ebpf") as watch:
        seen = []
        for _ in range(3):
            workload.do("f")
            seen.append(watch._profiler.take())
    totals = [one.faults.total for one in seen]
    of_the_root = [one.members[0].faults.total for one in seen]
    assert totals == sorted(totals)
    assert totals[2] - of_the_root[2] > totals[0] - of_the_root[0] > 0
    assert all(len(one.members) == 1 for one in seen)


def stopped(pid: int) -> bool:
    """Whether all threads of a tree stand still."""
    procfs = ProcFs()
    try:
        return all(
            procfs.thread_stat(one, tid).state in "TZ"
            for one in procfs.tree(pid)
            for tid in procfs.threads(one)
        )
    except ProcessLookupError:
        return False  # one was ending while we looked


@pytest.mark.parametrize("source", ["ebpf", "proc"])
def test_descriptors_equal_proc_a_hundred_times(start, tmp_path, eventually, source) -> None:
    """A torture program stopped a hundred times: both must tell the same of every descriptor."""
    # It would leave whoever looks a small part of an emulated CPU.
    last = ("nice", "-n", "19") if IN_GUEST else ()
    torture = str(WORKLOADS / "torture_descriptors.py")
    workload = start.command(*last, sys.executable, torture, str(tmp_path), group=True)
    procfs = ProcFs()
    seen = 0
    rounds = 3 if IN_GUEST else 100 if source == "ebpf" else 10
    with Watch(workload.task, 60.0, arm="none", source=source) as watch:
        for _ in range(rounds):
            os.killpg(workload.pid, signal.SIGSTOP)
            eventually(lambda: stopped(workload.pid), "all threads stop")
            expected = {
                (pid, one.fd): (one.flags, one.pos, one.inode, one.target)
                for pid in procfs.tree(workload.pid)
                for one in procfs.descriptors(pid)
            }
            profile = watch._profiler.take()
            told = {
                (one.pid, one.fd): (one.flags, one.position, one.inode, one.path)
                for one in profile.descriptors
            }
            assert told == expected, profile.losses
            seen += len(told)
            os.killpg(workload.pid, signal.SIGCONT)
            time.sleep(0.3 if IN_GUEST else 0.01)
    assert seen > rounds * 100
    assert profile.counts.adopted == 0, "every birth was seen"


def ss(*options: str) -> dict[int, tuple[str, int, int]]:
    """What ss(8) says of sockets: inode -> state, receive and send queue."""
    text = subprocess.run(
        ["ss", "-H", "-a", "-n", "-e", *options], capture_output=True, text=True, check=True
    ).stdout
    found = {}
    for line in text.splitlines():
        if options == ("-x",):
            _, state, receive, send, _, inode = line.split()[:6]
        else:
            state, receive, send = line.split()[:3]
            match = re.search(r"\bino:(\d+)", line)
            if match is None:
                continue
            inode = match[1]
        found[int(inode)] = (state, int(receive), int(send))
    return found


def waiting_at(port: int) -> list[str]:
    """The connections that were accepted at a port and are in TIME_WAIT."""
    command = ["ss", "-H", "-t", "-n", "-e", "state", "time-wait", f"( sport = {port} )"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    return [line for line in result.stdout.splitlines() if " ino:0 " in line]


#: ss has names of its own.
SS_STATES = {
    "LISTEN": "LISTEN",
    "ESTABLISHED": "ESTAB",
    "SYN_SENT": "SYN-SENT",
    "SYN_RECV": "SYN-RECV",
    "FIN_WAIT1": "FIN-WAIT-1",
    "FIN_WAIT2": "FIN-WAIT-2",
    "CLOSE_WAIT": "CLOSE-WAIT",
    "LAST_ACK": "LAST-ACK",
    "CLOSING": "CLOSING",
    "CLOSE": "UNCONN",
}


def _tells_unread_bytes() -> bool:
    """Whether the kernel knows the unread bytes of a unix stream without adding them up."""
    try:
        Btf.of_kernel().offset("unix_sock.inq_len")
    except LookupError:
        return False
    return True


@pytest.mark.parametrize("source", ["ebpf", "proc"])
def test_sockets_equal_ss(start, source) -> None:
    """More than a thousand connections, in all states that a descriptor can show."""
    workload = start.command(
        sys.executable, str(WORKLOADS / "many_sockets.py"), "40" if IN_GUEST else "320"
    )
    port = int(workload.answer())
    # A connection in TIME_WAIT has no socket any more, nor owner: the kernel keeps what it needs to
    # answer for it. So it is nobody's, here as in /proc; restored tasks do not have it.
    assert len(waiting_at(port)) == 23
    os.kill(workload.pid, signal.SIGSTOP)
    with Watch(workload.task, 60.0, arm="none", source=source) as watch:
        # What is in flight when the program stops still arrives: compare when two looks agree.
        said, after = {}, {0: ("", 0, 0)}
        for _ in range(20):
            said = {**ss("-t"), **ss("-u"), **ss("-x")}
            profile = watch._profiler.take()
            inodes = {one.inode for one in profile.sockets}
            after = {**ss("-t"), **ss("-u"), **ss("-x")}
            if all(said.get(inode) == after.get(inode) for inode in inodes):
                break
            time.sleep(0.2)
    told = {
        one.inode: (SS_STATES[one.state], one.receive_queue, one.send_queue)
        for one in profile.sockets
        # One that is closed and bound to nothing is in no list.
        if one.inode in said or one.state not in ("CLOSE", "UNKNOWN")
    }
    connections = {
        frozenset((one.local, one.peer))
        for one in profile.sockets
        if one.family != "unix" and one.protocol == socket.IPPROTO_TCP and one.peer
    }
    assert len(connections) >= (125 if IN_GUEST else 1000)
    assert {state for state, _, _ in told.values()} == set(SS_STATES.values())
    assert not [one for one in profile.sockets if one.local.endswith(f":{port}") and one.peer]
    unknown = {inode for inode, (_, receive, _) in told.items() if receive is None}
    assert bool(unknown) == (source == "ebpf" and not _tells_unread_bytes())
    for inode in unknown:
        state, receive, send = said[inode]
        assert receive, "only where there is something to be read"
        said[inode] = (state, None, send)
    assert told == {inode: said[inode] for inode in told}
    by_inode = {one.inode: one for one in profile.sockets}
    for one in profile.sockets:
        if one.family == "unix" and one.peer:
            peer = by_inode.get(int(one.peer[8:-1]))
            # The accepted end of a connection that waits to be accepted has no descriptor.
            assert peer is None or peer.peer == f"socket:[{one.inode}]"


def test_a_stranger_with_the_pid_of_a_member_that_ended_is_none(start) -> None:
    """The member's last counts are not yet collected when its pid is used again."""
    workload = start.command(sys.executable, "-uc", FORKER)
    with Watch(workload.task, 60.0, arm="none", source="ebpf") as watch:
        member = int(workload.do())
        uncollected = watch._profiler._source._observer._programs.maps["counts"].items("u4", "u8")[
            0
        ]
        assert len(uncollected) == 2, "the workload's, and those of its child that has ended"
        stranger = None
        for _ in range(200):
            with contextlib.suppress(OSError):
                Path("/proc/sys/kernel/ns_last_pid").write_text(str(member - 1))
            child = subprocess.Popen(["sleep", "60"])
            if child.pid == member:
                stranger = child
                break
            child.kill()
            child.wait()
        if stranger is None:
            pytest.skip("this host gave the pid to nobody")
        try:
            profile = watch._profiler.take()
        finally:
            stranger.kill()
            stranger.wait()
    assert [one.pid for one in profile.members] == [workload.pid]
    assert stranger.pid not in {one.pid for one in profile.descriptors}
    assert profile.counts.forks == 1
    assert profile.counts.execs == 0


FORKER = """
import os, sys
print('ready')
for line in sys.stdin:
    pid = os.fork() or os._exit(0)
    os.waitpid(pid, 0)
    print(pid)
"""


def test_faults_without_ebpf_are_counted_all_the_same(start, exact) -> None:
    workload = start.command(str(exact))
    with Watch(workload.task, 60.0, arm="none", source="proc") as watch:
        workload.do("w")
        before = watch._profiler.take()
        workload.do("w")
        after = watch._profiler.take()
    assert after.faults == FaultCounts(other=before.faults.other + TIMES)
