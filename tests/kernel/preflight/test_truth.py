"""What preflight calls fatal CRIU itself refuses; what it lets pass CRIU dumps and restores.

Not judged here, for they need hardware, probes or an instant that cannot be caught: device-memory,
uprobes, bpf-link, tcp-state, unix-dangling; and mount-namespace and orphan, which are limits of a
restore by snaplib.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import attrs
import pytest

from snaplib.checkpoint.preflight import preflight
from snaplib.errors import UsageError
from snaplib.kernel import ProcFs
from snaplib.task import Task

CLONE_NEWNS = "20000"
CLONE_NEWUSER = "10000000"
CLONE_NEWTIME = "80"


@attrs.frozen
class Case:
    """A feature, what preflight calls it, and a piece of what CRIU says to it."""

    feature: str
    code: str
    text: str
    argument: str = ""
    subject: str = "fd "
    options: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.feature}({self.argument})" if self.argument else self.feature


#: Refused by the dump.
REFUSED = (
    Case("io-uring", "io-uring-descriptor", "Can't retrieve FDs"),
    Case("io-uring-mapping", "io-uring-mapping", "[io_uring]", subject="mapping "),
    Case("userfaultfd", "userfaultfd", "[userfaultfd]"),
    Case("perf-event", "perf-event", "[perf_event]"),
    Case("perf-mapping", "kernel-mapping", "[perf_event]", subject="mapping "),
    Case("bpf-map", "bpf-map", "bpf-map"),
    Case("bpf-program", "bpf-program", "bpf-prog"),
    Case("seccomp-notify", "seccomp-notify", "seccomp notify"),
    Case("landlock-ruleset", "landlock-ruleset", "landlock-ruleset"),
    Case("mount-context", "unknown-descriptor", "[fscontext]"),
    Case("device", "device", "chr 10:229", "/dev/fuse"),
    Case("device", "device", "chr 10:232", "/dev/kvm"),
    Case("device", "device", "chr 10:257", "/dev/userfaultfd"),
    Case("device-read-only", "device", "chr 10:183", "/dev/hwrng"),
    Case("device-read-only", "device", "chr 4:64", "/dev/ttyS0"),
    Case("device-read-only", "block-device", "/dev/loop0", "/dev/loop0"),
    Case("device", "tun-device", "Net namespace is required", "/dev/net/tun"),
    Case("mptcp-server", "mptcp-socket", "Unsupported proto 262"),
    Case("socket-of", "mptcp-socket", "Unsupported proto 262", "2,1,262"),
    Case("socket-of", "socket-family", "family 40", "40,1,0"),
    Case("socket-of", "socket-family", "family 44", "44,3,0"),
    Case("netlink-queued", "netlink-unread", "has data to read"),
    Case("netlink-groups", "netlink-groups", "more than 32 groups"),
    Case("foreign-unix-socket", "socket-of-other-namespace", "not found"),
    Case("unix-unaccepted", "unix-not-accepted", "in-flight socket"),
    Case("unix-unaccepted", "unix-connection-closed", "closed in-flight", "closed"),
    Case("pidfd-of", "pidfd-outside", "not a part of process tree"),
    Case("pidfd-of-thread", "pidfd-thread", "PIDFD_THREAD"),
    Case("sysv-shm", "sysv-shared-memory", "doesn't live in IPC ns", subject="mapping "),
    Case("mqueue", "message-queue", "Can't lookup mount"),
    Case("memfd-secret", "secret-memory", "/secretmem"),
    Case("memfd-secret-mapping", "secret-memory", "/secretmem", subject="mapping "),
    Case("detached-mount", "mount-gone", "Can't lookup mount"),
    Case("hidden-path", "path-replaced", "Unaccessible path opened"),
    Case("pending-connection", "tcp-not-accepted", "In-flight connection"),
    Case("udp-corked", "udp-corked", "corked dgram socket"),
    Case("packet-pipe", "packet-pipe", "packetized mode"),
    Case("epoll-escaped", "epoll-escaped", "Dump eventpoll"),
    Case("namespace-of", "namespace-outside", "No NS ID"),
    Case("unshared", "user-namespace", "uid or gid", CLONE_NEWUSER, "process"),
    Case("unshared", "time-namespace", "nested time namespace", CLONE_NEWTIME, "process"),
    Case("nested-pid-namespace", "nested-namespace", "nested pid namespace", subject="process"),
    Case("nested-mount-namespace", "nested-namespace", "mount", subject="process"),
    Case("controlling-terminal", "controlling-terminal", "ctty inheritance"),
    Case("traced-child", "traced", "Unseizable", subject="process"),
    Case("ended-leader", "main-thread-ended", "Zombies with threads", subject="process"),
    Case("vfork-parent", "vfork-parent", "state D", subject="process", options=("--timeout", "1")),
)


@pytest.mark.parametrize("case", REFUSED, ids=lambda case: case.name)
def test_the_dump_refuses_it(start, judge, case: Case) -> None:
    if case.argument.startswith("/dev/") and not Path(case.argument).exists():
        pytest.skip(f"no {case.argument} here")
    workload = start(case.feature, case.argument)
    found = [one for one in workload.preflight() if one.fatal]
    assert [one for one in found if one.code == case.code and one.subject.startswith(case.subject)]
    for one in found:
        assert one.message
        assert one.remedy
        assert "\n" not in one.message + one.remedy
    assert case.text in judge.dump(workload.pid, *case.options)


def test_a_mount_namespace(start) -> None:
    # Whether the dump works depends on what is mounted; the restore needs the file systems.
    workload = start("unshared", CLONE_NEWNS)
    assert [one.code for one in workload.preflight() if one.fatal] == ["mount-namespace"]


@pytest.mark.parametrize("feature", ["deleted-file", "deleted-mapping"])
def test_a_deleted_file_above_the_limit(start, judge, feature: str) -> None:
    workload = start(feature, str(3 << 20))
    assert not workload.preflight(ghost_limit_bytes=4 << 20)
    assert {one.code for one in workload.preflight(ghost_limit_bytes=1 << 20)} == {
        "deleted-file-too-large"
    }
    assert "increase limit" in judge.dump(workload.pid, "--ghost-limit", "1M")


def test_a_process_of_another_user(start, judge) -> None:
    """Root of a container that lacks a capability cannot save what has given up root; elsewhere it can."""
    allowed = ProcFs().status(os.getpid()).effective_capabilities >> 24 & 1
    workload = start("other-user")
    found = [one.code for one in workload.preflight()]
    assert found == ([] if allowed else ["limits-hidden"])
    assert bool(judge.dump(workload.pid)) == bool(found)


def test_a_tracer_outside(start, judge) -> None:
    workload = start("nothing")
    code = (
        "import ctypes, sys, time; libc = ctypes.CDLL(None);"
        f"print(libc.ptrace(0x4206, {workload.pid}, None, None), flush=True); time.sleep(600)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as tracer:
        try:
            assert tracer.stdout.readline() == b"0\n"
            (found,) = workload.preflight()
            assert found.code == "traced"
            assert f"pid {tracer.pid} " in found.message
            assert judge.dump(workload.pid)
        finally:
            tracer.kill()


def test_half_of_a_socket_pair(start, judge) -> None:
    for kind, text in ((socket.SOCK_STREAM, "half of stream"), (socket.SOCK_DGRAM, "name-less")):
        ours, theirs = socket.socketpair(type=kind)
        with ours, theirs:
            workload = start("nothing", pass_fds=[theirs.fileno()])
            (found,) = workload.preflight()
            assert found.code == "unix-outside"
            assert found.subject == f"fd {theirs.fileno()}"
            assert f"pid {os.getpid()} " in found.message
            assert text in judge.dump(workload.pid)
            workload.end()
            workload.ready.unlink()


def test_a_terminal_of_somebody_else(start, judge) -> None:
    master, slave = os.openpty()
    try:
        workload = start("nothing", stdin=slave, stdout=slave, stderr=slave)
        (found,) = workload.preflight()
        assert (found.code, found.subject) == ("terminal-outside", "fd 0")
        name, device = os.ttyname(slave), os.fstat(slave)
        assert name in found.message
        assert "without correspond master" in judge.dump(workload.pid)
        # Told that it is the owner's, and handed over, it is no obstacle.
        key = f"tty[{device.st_rdev:x}:{device.st_dev:x}]"
        assert not workload.preflight(streams=[key])
        assert not judge.dump(workload.pid, "--external", key)
    finally:
        os.close(master)
        os.close(slave)


def test_a_server_outside_that_has_accepted(start, judge, tmp_path: Path) -> None:
    path = str(tmp_path / "server")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen(5)
        workload = start("unix-client", path)
        with server.accept()[0]:
            (found,) = workload.preflight()
            assert found.code == "unix-outside"
            assert path in found.message
            assert f"pid {os.getpid()} " in found.message
            assert "half of stream" in judge.dump(workload.pid)


def test_a_server_outside_that_has_not_accepted(start, judge, tmp_path: Path) -> None:
    path = str(tmp_path / "server")
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path)
        server.listen(5)
        workload = start("unix-client", path)
        (found,) = workload.preflight()
        assert found.code == "unix-outside"
        assert path in found.message
        assert f"pid {os.getpid()} " in found.message
        assert not judge.dump(workload.pid)
        workload.kill()
        assert "unresolved" in judge.restore()


def test_a_proc_file_of_a_thread(start, judge) -> None:
    workload = start("thread-proc-file")
    (found,) = workload.preflight()
    assert found.code == "proc-thread"
    assert not judge.dump(workload.pid)
    workload.kill()
    assert "Can't open file" in judge.restore()


def test_a_proc_file_of_a_process_outside(start, judge) -> None:
    workload = start("proc-of")
    (found,) = workload.preflight()
    assert found.code == "proc-outside"
    assert f"/proc/{os.getpid()}/status" in found.message
    assert not judge.dump(workload.pid)
    workload.kill()
    assert "Can't open file" in judge.restore()


def test_session_of_somebody_else(start, judge) -> None:
    workload = start("nothing", start_new_session=False)
    (found,) = workload.preflight()
    assert (found.code, found.severity) == ("session-outside", "warning")
    assert "--shell-job" in judge.dump(workload.pid)
    assert not judge.dump(workload.pid, "--shell-job")
    workload.kill()
    assert not judge.restore("--shell-job")
    assert workload.check() == "OK"


def test_a_session_nobody_leads(start, judge) -> None:
    workload = start("lost-session", start_new_session=False)
    (found,) = [one for one in workload.preflight() if one.fatal]
    assert found.code == "session-leader-lost"
    assert not judge.dump(workload.pid, "--shell-job")
    workload.kill()
    assert "Can't find a session leader" in judge.restore("--shell-job")


def test_a_session_of_a_nearer_parent(start, judge) -> None:
    workload = start("lost-session")
    assert not workload.preflight()
    assert not judge.dump(workload.pid)
    workload.kill()
    assert not judge.restore()


def test_a_watch_on_a_mount_that_is_gone(start, judge, tmp_path: Path) -> None:
    folder = tmp_path / "watched"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "workload", folder], check=True)
    # The watch lives as long as the file system, which somebody still uses.
    holder = os.open(folder, os.O_RDONLY)
    try:
        workload = start("watch", str(folder))
        assert not workload.preflight()
        subprocess.run(["umount", "--lazy", folder], check=True)
        (found,) = workload.preflight()
        assert found.code == "watch-unreachable"
        assert judge.dump(workload.pid)
    finally:
        os.close(holder)
        if folder.is_mount():
            subprocess.run(["umount", "--lazy", folder], check=True)


def test_a_network_namespace_with_interfaces(start, judge) -> None:
    if shutil.which("ip") is None:
        pytest.skip("no ip here (iproute2)")
    workload = start("unshared", "40000000")
    assert not workload.preflight()
    add = "link add snaplib0 type veth peer name snaplib1 netns"
    subprocess.run(["ip", *add.split(), str(workload.pid)], check=True)
    try:
        (found,) = workload.preflight()
        assert found.code == "network-namespace"
        assert "snaplib1" in found.message
        assert not judge.dump(workload.pid)
        workload.kill()
        assert judge.restore()
    finally:
        subprocess.run(["ip", "link", "delete", "snaplib0"], check=False, capture_output=True)


@pytest.mark.parametrize(
    ("inner", "code", "text"),
    [
        (["setsid", "--wait", "sleep", "600"], "pid-namespace", "without the process init"),
        (["sleep", "600"], "session-outside-namespace", "session leader"),
    ],
)
def test_parts_of_a_pid_namespace(start, judge, inner: list[str], code: str, text: str) -> None:
    command = ["unshare", "--pid", "--fork", "--kill-child", "sh", "-c", '"$@"; exit', "-"]
    with subprocess.Popen([*command, *inner], start_new_session=True) as process:
        try:
            give_up = time.monotonic() + 20
            while (
                "sleep"
                not in (
                    tree := {pid: ProcFs().comm(pid) for pid in ProcFs().tree(process.pid)}
                ).values()
            ):
                assert time.monotonic() < give_up
                time.sleep(0.01)
            root = max(tree)
            found = [one for one in preflight(Task.attach(root)) if one.fatal]
            assert code in {one.code for one in found}
            assert text in judge.dump(root)
        finally:
            process.kill()


#: Dumped and restored, and then not what it was.
LOST = (
    ("udp-queue", "", "udp-unread"),
    ("sealed-memory", "", "sealed-memory"),
    ("droppable-memory", "", "droppable-memory"),
)


@pytest.mark.parametrize(("feature", "argument", "code"), LOST)
def test_it_is_lost(start, judge, feature: str, argument: str, code: str) -> None:
    workload = start(feature, argument)
    (found,) = workload.preflight()
    assert (found.code, found.severity) == (code, "lost")
    assert not judge.dump(workload.pid)
    workload.kill()
    assert not judge.restore()
    assert workload.check().startswith("BAD")


def test_connections_are_lost_when_closed(start, judge) -> None:
    workload = start("tcp-pair")
    assert not workload.preflight()
    found = workload.preflight(tcp="close")
    assert [(one.code, one.severity) for one in found] == [("tcp-closed", "lost")] * 2
    with pytest.raises(UsageError, match="tcp='refuse' is not one of auto"):
        workload.preflight(tcp="refuse")
    assert "Connected TCP socket" in judge.dump(workload.pid, without="--tcp-established")
    assert not judge.dump(workload.pid, "--tcp-close")


def test_a_connection_to_somebody_outside(start) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        workload = start("tcp-client", str(port))
        (found,) = workload.preflight()
        assert (found.code, found.severity) == ("tcp-host", "warning")
        assert f"127.0.0.1:{port}" in found.message


def test_a_connection_that_is_being_made(start, judge) -> None:
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=1))
        while True:
            # Linux drops what comes when the queue is full, and the client tries again.
            client = stack.enter_context(socket.socket())
            client.settimeout(0.2)
            try:
                client.connect(server.getsockname())
            except TimeoutError:
                break
        workload = start("connecting", str(server.getsockname()[1]))
        (found,) = workload.preflight()
        assert (found.code, found.severity) == ("tcp-host", "warning")
        assert not judge.dump(workload.pid)
        workload.kill()
        assert not judge.restore()


def test_datagrams_to_a_server_outside(start, judge, tmp_path: Path) -> None:
    path = str(tmp_path / "server")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as server:
        server.bind(path)
        workload = start("unix-datagram-client", path)
        (found,) = workload.preflight()
        assert (found.code, found.severity) == ("unix-datagram-outside", "warning")
        assert not judge.dump(workload.pid)
        workload.kill()
        assert not judge.restore()
        assert workload.check() == "OK"


def test_pipes_that_lead_outside(start) -> None:
    reader, writer = os.pipe()
    workload = start("nothing", pass_fds=[writer])
    (found,) = workload.preflight()
    assert (found.code, found.severity) == ("pipe-outside", "lost")
    target = Path(f"/proc/self/fd/{writer}").readlink()
    assert f"{target} to pid {os.getpid()} " in found.message
    assert not workload.preflight(streams=[str(target)])
    # With nobody at the other end it is broken before as after.
    os.close(reader)
    assert not workload.preflight()
    os.close(writer)


def test_a_lock_shared_with_somebody_outside(start, tmp_path: Path) -> None:
    with (tmp_path / "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        workload = start("nothing", pass_fds=[file.fileno()])
        (found,) = workload.preflight()
        assert (found.code, found.severity) == ("lock-outside", "warning")
        assert f"pid {os.getpid()} " in found.message


def test_processes_that_got_away(start) -> None:
    workload = start("orphan")
    (found,) = workload.preflight()
    assert (found.code, found.severity) == ("orphan", "lost")
    assert (workload.folder / "orphan").read_text() in found.message


def test_a_message_queue(start) -> None:
    workload = start("sysv-queue")
    (found,) = workload.preflight()
    assert (found.code, found.severity) == ("sysv-message-queue", "lost")


def test_a_file_with_another_name(start, judge) -> None:
    workload = start("renamed-link")
    (found,) = workload.preflight()
    assert (found.code, found.severity) == ("link-lost", "warning")
    assert not judge.dump(workload.pid)


#: No obstacle at all; dumped, restored, and as it was.
CLEAN = (
    *("nothing", "threads", "children", "zombie", "files", "deleted-file", "deleted-mapping"),
    *("socket-pair", "unix-server", "tcp-server", "tcp-pair", "udp", "raw-sockets", "inotify"),
    *("event-descriptors", "shared-memory", "posix-locks", "terminal-pair", "stopped-child"),
    "own-proc",
)


@pytest.mark.parametrize("feature", CLEAN)
def test_what_is_clean_is_restored(start, judge, feature: str) -> None:
    workload = start(feature)
    assert not workload.preflight()
    assert not judge.dump(workload.pid)
    workload.kill()
    assert not judge.restore()
    assert workload.check() == "OK"


@pytest.mark.parametrize(
    ("feature", "argument"),
    [
        ("device-read-only", "/dev/kmsg"),
        ("device-read-only", "/dev/tty1"),
        ("device-read-only", "/dev/autofs"),
        ("socket-of", "2,2,136"),
        ("unshared", "04000000"),
        ("unshared", "08000000"),
        ("unshared", "02000000"),
        ("unshared", "20000000"),
        ("unshared", "40000000"),
    ],
)
def test_what_is_clean_is_dumped(start, judge, feature: str, argument: str) -> None:
    if argument.startswith("/dev/") and not Path(argument).exists():
        pytest.skip(f"no {argument} here")
    workload = start(feature, argument)
    assert not workload.preflight()
    assert not judge.dump(workload.pid)
