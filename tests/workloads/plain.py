"""Features that a dump and a restore carry over, each with a check of its own."""

from __future__ import annotations

import fcntl
import mmap
import os
import resource
import select
import signal
import socket
import struct
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

from kernel_calls import LIBC, anonymous, checked

if TYPE_CHECKING:
    from collections.abc import Callable

    Check = Callable[[], bool] | None

__all__ = ["FEATURES"]

FEATURES: dict[str, Callable[[Path, str], Check]] = {}

#: Objects that only need to stay open.
KEPT: list[object] = []


def feature(function: Callable[[Path, str], Check]) -> Callable[[Path, str], Check]:
    """Register a function under its name, with hyphens."""
    FEATURES[function.__name__.replace("_", "-")] = function
    return function


def comes_true(condition: Callable[[], bool], within_s: float = 10.0) -> bool:
    """Wait until a condition holds, and return whether it did in time."""
    deadline = time.monotonic() + within_s
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def fork_sleeper() -> int:
    """Fork a child that sleeps for ever; return its pid."""
    pid = os.fork()
    if pid == 0:
        while True:
            signal.pause()
    return pid


@feature
def nothing(_folder: Path, _argument: str) -> Check:
    return None


@feature
def threads(_folder: Path, _argument: str) -> Check:
    counts = [0] * 8

    def count(number: int) -> None:
        while True:
            counts[number] += 1
            time.sleep(0.02)

    for number in range(8):
        threading.Thread(target=count, args=(number,), daemon=True).start()

    def check() -> bool:
        before = list(counts)
        return comes_true(lambda: all(new > old for new, old in zip(counts, before, strict=True)))

    return check


@feature
def children(_folder: Path, _argument: str) -> Check:
    reader, writer = os.pipe()
    for _ in range(3):
        if os.fork() == 0:
            while True:
                os.write(writer, b"x")
                time.sleep(0.05)
    return lambda: len(os.read(reader, 3)) > 0


@feature
def other_user(_folder: Path, _argument: str) -> Check:
    """A child that runs as another user."""
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.setgroups([])
        os.setresgid(65534, 65534, 65534)
        os.setresuid(65534, 65534, 65534)
        os.write(writer, b"x")
        while True:
            signal.pause()
    os.read(reader, 1)
    return None


@feature
def zombie(_folder: Path, _argument: str) -> Check:
    pid = os.fork()
    if pid == 0:
        os._exit(7)
    return lambda: os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 7


@feature
def files(folder: Path, _argument: str) -> Check:
    file = (folder / "plain.dat").open("w+b")
    file.write(b"hello" * 1000)
    file.flush()
    file.seek(123)
    KEPT.append(Path("/dev/urandom").open("rb"))  # noqa: SIM115 - it is to stay open
    KEPT.append(Path("/dev/null").open("wb"))  # noqa: SIM115
    KEPT.append(os.open(folder, os.O_PATH))
    KEPT.append(os.open(folder, os.O_RDONLY | os.O_DIRECTORY))
    return lambda: file.tell() == 123 and os.fstat(file.fileno()).st_size == 5000


@feature
def deleted_file(folder: Path, argument: str) -> Check:
    """A deleted file of so many bytes (default 100000), with blocks behind all of them."""
    size = int(argument or 100_000)
    file = (folder / "deleted.dat").open("w+b")
    file.write(b"z" * size)
    file.flush()
    (folder / "deleted.dat").unlink()
    return lambda: os.pread(file.fileno(), size + 1, 0) == b"z" * size


@feature
def deleted_mapping(folder: Path, argument: str) -> Check:
    size = int(argument or 100_000)
    path = folder / "mapped.dat"
    path.write_bytes(b"y" * size)
    with path.open("r+b") as file:
        memory = mmap.mmap(file.fileno(), size)
    path.unlink()
    return lambda: memory[:] == b"y" * size


@feature
def renamed_link(folder: Path, _argument: str) -> Check:
    """A file whose name is gone but which has another link."""
    file = (folder / "first.dat").open("w+b")
    file.write(b"abc")
    file.flush()
    os.link(folder / "first.dat", folder / "second.dat")
    (folder / "first.dat").unlink()
    return lambda: os.pread(file.fileno(), 9, 0) == b"abc"


@feature
def socket_pair(_folder: Path, _argument: str) -> Check:
    one, other = socket.socketpair()
    one.send(b"queued")
    return lambda: other.recv(6) == b"queued" and one.send(b"queued") == 6


@feature
def unix_server(folder: Path, _argument: str) -> Check:
    """A listening socket with one accepted connection, all in this process."""
    path = str(folder / "u.sock")
    server = socket.socket(socket.AF_UNIX)
    server.bind(path)
    server.listen(5)
    client = socket.socket(socket.AF_UNIX)
    client.connect(path)
    accepted, _ = server.accept()
    return lambda: client.send(b"a") == 1 and accepted.recv(1) == b"a"


@feature
def tcp_server(_folder: Path, _argument: str) -> Check:
    server = socket.create_server(("127.0.0.1", 0))

    def check() -> bool:
        with socket.create_connection(server.getsockname()):
            server.accept()[0].close()
        return True

    return check


@feature
def tcp_pair(_folder: Path, _argument: str) -> Check:
    """An established connection of which both ends are in this process."""
    server = socket.create_server(("127.0.0.1", 0))
    client = socket.create_connection(server.getsockname())
    accepted, _ = server.accept()
    return lambda: client.send(b"ping") == 4 and accepted.recv(4) == b"ping"


@feature
def udp(_folder: Path, _argument: str) -> Check:
    one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    one.bind(("127.0.0.1", 0))
    one.connect(one.getsockname())
    unbound = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    KEPT.extend([unbound, socket.socket(socket.AF_INET, socket.SOCK_STREAM)])
    return lambda: one.send(b"x") == 1 and one.recv(1) == b"x"


@feature
def raw_sockets(_folder: Path, _argument: str) -> Check:
    KEPT.append(socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP))
    KEPT.append(socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0x0300))
    netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
    netlink.bind((0, 0))
    KEPT.append(netlink)
    return None


@feature
def inotify(folder: Path, _argument: str) -> Check:
    watch = checked(LIBC.inotify_init1(0x800), "inotify_init1")
    checked(LIBC.inotify_add_watch(watch, os.fsencode(folder), 0x100), "inotify_add_watch")

    def check() -> bool:
        (folder / "noticed").touch()
        (folder / "noticed").unlink()
        return len(os.read(watch, 4096)) > 0

    return check


@feature
def event_descriptors(_folder: Path, _argument: str) -> Check:
    """Epoll, eventfd, timerfd, signalfd and a pidfd of ourselves."""
    event = checked(LIBC.eventfd(5, 0), "eventfd")
    timer = checked(LIBC.timerfd_create(1, 0), "timerfd_create")
    every = struct.pack("<4q", 0, 20_000_000, 0, 20_000_000)
    checked(LIBC.timerfd_settime(timer, 0, every, None), "timerfd_settime")
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    mask = struct.pack("<Q", 1 << (signal.SIGUSR1 - 1))
    signals = checked(LIBC.signalfd(-1, mask, 0), "signalfd")
    reader, writer = os.pipe()
    poll = select.epoll()
    poll.register(reader, select.EPOLLIN)
    KEPT.append(os.pidfd_open(os.getpid()))

    def check() -> bool:
        os.write(writer, b"x")
        os.kill(os.getpid(), signal.SIGUSR1)
        return (
            len(poll.poll(1)) == 1
            and os.read(reader, 1) == b"x"
            and os.read(event, 8) == struct.pack("<Q", 5)
            and os.write(event, struct.pack("<Q", 5)) == 8
            and len(os.read(timer, 8)) == 8
            and len(os.read(signals, 128)) == 128
        )

    return check


@feature
def expired_timer(_folder: Path, _argument: str) -> Check:
    """A periodic timerfd that has expired, which stands still until it is read."""
    timer = checked(LIBC.timerfd_create(1, 0), "timerfd_create")
    every = struct.pack("<4q", 0, 20_000_000, 0, 20_000_000)
    checked(LIBC.timerfd_settime(timer, 0, every, None), "timerfd_settime")
    select.select([timer], [], [])

    def check() -> bool:
        for _ in range(3):
            if not select.select([timer], [], [], 20)[0]:
                return False
            os.read(timer, 8)
        return bool(select.select([timer], [], [], 20)[0])

    return check


@feature
def shared_memory(_folder: Path, _argument: str) -> Check:
    """A memfd, shared anonymous memory with a child, hugetlb if there is any."""
    descriptor = os.memfd_create("workload")
    os.ftruncate(descriptor, 1 << 20)
    memory = mmap.mmap(descriptor, 1 << 20)
    memory[5000:5005] = b"hello"
    shared = mmap.mmap(-1, 1 << 16)
    if os.fork() == 0:
        while True:
            shared[0:8] = struct.pack("<Q", struct.unpack("<Q", shared[0:8])[0] + 1)
            time.sleep(0.01)

    def check() -> bool:
        before = shared[0:8]
        return memory[5000:5005] == b"hello" and comes_true(lambda: shared[0:8] != before)

    return check


@feature
def untouched_shared_memory(_folder: Path, _argument: str) -> Check:
    descriptor = os.memfd_create("untouched")
    os.ftruncate(descriptor, 1 << 20)
    memories = [mmap.mmap(descriptor, 1 << 20), mmap.mmap(-1, 1 << 20)]

    def check() -> bool:
        untouched = all(memory[:] == bytes(1 << 20) for memory in memories)
        for memory in memories:
            memory[4711] = 1
        return untouched and os.pread(descriptor, 1, 4711) == b"\1"

    return check


@feature
def posix_locks(folder: Path, _argument: str) -> Check:
    for number, lock in enumerate((fcntl.flock, fcntl.lockf)):
        file = (folder / f"lock{number}").open("w")
        lock(file, fcntl.LOCK_EX)
        KEPT.append(file)
    return None


@feature
def terminal_pair(_folder: Path, _argument: str) -> Check:
    """A pseudo-terminal of which both ends are in this process."""
    master, slave = os.openpty()
    return lambda: os.write(master, b"hi\n") == 3 and os.read(slave, 9) == b"hi\n"


@feature
def random_bytes(_folder: Path, _argument: str) -> Check:
    """Random bytes: since Linux 6.11 from the vdso, which keeps its state in droppable memory of the process."""
    before = os.urandom(16)
    return lambda: len({before, os.urandom(16), os.urandom(16), bytes(16)}) == 4


@feature
def stopped_child(_folder: Path, _argument: str) -> Check:
    pid = fork_sleeper()
    os.kill(pid, signal.SIGSTOP)
    os.waitpid(pid, os.WUNTRACED)
    return None


@feature
def own_proc(_folder: Path, _argument: str) -> Check:
    KEPT.append(Path("/proc/self/status").open())  # noqa: SIM115 - it is to stay open
    KEPT.append(Path("/proc/meminfo").open())  # noqa: SIM115
    KEPT.append(os.open("/proc/self/ns/net", os.O_RDONLY))
    return None


@feature
def large(folder: Path, argument: str) -> Check:
    """A tree of 10 processes, each with ARGUMENT descriptors and as many mappings."""
    count = int(argument or 100)
    resource.setrlimit(resource.RLIMIT_NOFILE, (count + 100, count + 100))
    for number in range(count // 2):
        KEPT.append((folder / f"file{number}").open("w"))
        KEPT.append(socket.socketpair()[0])
    for number in range(count):
        # Neighbours of different protection stay mappings of their own.
        anonymous(4096, protection=1 + 2 * (number % 2))
    for _ in range(9):
        fork_sleeper()
    return None
