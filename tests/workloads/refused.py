"""Features that stand in the way of a dump or a restore, or that are lost by them."""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import select
import signal
import socket
import struct
import threading
import time
from typing import TYPE_CHECKING

from kernel_calls import LIBC, Unsupported, anonymous, checked, system_call

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Check = Callable[[], bool] | None

__all__ = ["FEATURES"]

FEATURES: dict[str, Callable[[Path, str], Check]] = {}

#: Objects that only need to stay open.
KEPT: list[object] = []

PR_SET_NO_NEW_PRIVS = 38


def feature(function: Callable[[Path, str], Check]) -> Callable[[Path, str], Check]:
    """Register a function under its name, with hyphens."""
    FEATURES[function.__name__.replace("_", "-")] = function
    return function


def fork_sleeper() -> int:
    """Fork a child that sleeps for ever; return its pid."""
    pid = os.fork()
    if pid == 0:
        while True:
            signal.pause()
    return pid


@feature
def io_uring(_folder: Path, _argument: str) -> Check:
    KEPT.append(system_call("io_uring_setup", 8, ctypes.create_string_buffer(120)))
    return None


@feature
def io_uring_mapping(_folder: Path, _argument: str) -> Check:
    ring = system_call("io_uring_setup", 8, ctypes.create_string_buffer(120))
    KEPT.append(mmap.mmap(ring, 4096, mmap.MAP_SHARED, offset=0))
    os.close(ring)
    return None


@feature
def userfaultfd(_folder: Path, _argument: str) -> Check:
    descriptor = system_call("userfaultfd", 0x80800)
    fcntl.ioctl(descriptor, 0xC018AA3F, bytearray(struct.pack("<QQQ", 0xAA, 0, 0)))
    return None


@feature
def perf_event(_folder: Path, _argument: str) -> Check:
    attributes = struct.pack("<IIQ", 1, 128, 0) + bytes(112)
    KEPT.append(system_call("perf_event_open", attributes, 0, -1, -1, 0))
    return None


@feature
def perf_mapping(_folder: Path, _argument: str) -> Check:
    attributes = struct.pack("<IIQ", 1, 128, 0) + bytes(112)
    descriptor = system_call("perf_event_open", attributes, 0, -1, -1, 0)
    KEPT.append(mmap.mmap(descriptor, 4096 * 2, mmap.MAP_SHARED))
    os.close(descriptor)
    return None


@feature
def bpf_map(_folder: Path, _argument: str) -> Check:
    attributes = struct.pack("<IIIII", 2, 4, 8, 4, 0) + bytes(100)
    KEPT.append(system_call("bpf", 0, attributes, len(attributes)))
    return None


@feature
def bpf_program(_folder: Path, _argument: str) -> Check:
    code = ctypes.create_string_buffer(
        struct.pack("<BBhi", 0xB7, 0, 0, 0) + struct.pack("<BBhi", 0x95, 0, 0, 0)
    )
    licence = ctypes.create_string_buffer(b"GPL")
    where = ctypes.addressof(code), ctypes.addressof(licence)
    attributes = struct.pack("<IIQQ", 1, 2, *where) + bytes(100)
    KEPT.append(system_call("bpf", 5, attributes, len(attributes)))
    return None


@feature
def seccomp_notify(_folder: Path, _argument: str) -> Check:
    LIBC.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    allow = ctypes.create_string_buffer(struct.pack("<HBBI", 6, 0, 0, 0x7FFF0000))
    program = struct.pack("<HxxxxxxQ", 1, ctypes.addressof(allow))
    KEPT.append(system_call("seccomp", 1, 8, program))
    return None


@feature
def mount_context(_folder: Path, _argument: str) -> Check:
    """A file system being configured (fsopen(2)): an object few programs have."""
    KEPT.append(system_call("fsopen", b"tmpfs", 0))
    return None


@feature
def landlock_ruleset(_folder: Path, _argument: str) -> Check:
    KEPT.append(system_call("landlock_create_ruleset", struct.pack("<Q", 1), 8, 0))
    return None


@feature
def device(_folder: Path, argument: str) -> Check:
    """Any device node, by its path."""
    KEPT.append(os.open(argument, os.O_RDWR))
    return None


@feature
def device_read_only(_folder: Path, argument: str) -> Check:
    KEPT.append(os.open(argument, os.O_RDONLY | os.O_NONBLOCK))
    return None


@feature
def socket_of(_folder: Path, argument: str) -> Check:
    """A socket of FAMILY,TYPE,PROTOCOL, bound and listening where that can be."""
    family, kind, protocol = map(int, argument.split(","))
    KEPT.append(socket.socket(family, kind, protocol))
    return None


@feature
def mptcp_server(_folder: Path, _argument: str) -> Check:
    server = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)
    server.bind(("127.0.0.1", 0))
    server.listen(2)
    KEPT.append(server)
    return None


@feature
def netlink_queued(_folder: Path, _argument: str) -> Check:
    """A netlink socket whose answer, the list of links, nobody has read."""
    netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
    netlink.bind((0, 0))
    netlink.send(struct.pack("<IHHII", 20, 18, 0x301, 1, 0) + bytes(4))
    KEPT.append(netlink)
    return None


@feature
def netlink_groups(_folder: Path, _argument: str) -> Check:
    netlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
    netlink.bind((0, 0))
    netlink.setsockopt(270, 1, 33)  # SOL_NETLINK, NETLINK_ADD_MEMBERSHIP
    KEPT.append(netlink)
    return None


@feature
def foreign_unix_socket(_folder: Path, _argument: str) -> Check:
    """Unix sockets made in a network namespace in which we are no more."""
    before = os.open("/proc/self/ns/net", os.O_RDONLY)
    checked(LIBC.unshare(0x40000000), "unshare")
    KEPT.extend(socket.socketpair())
    checked(LIBC.setns(before, 0), "setns")
    os.close(before)
    return None


@feature
def unix_unaccepted(folder: Path, argument: str) -> Check:
    """A connection to ourselves, not accepted, that has sent data or (ARGUMENT) is closed."""
    server, client = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
    server.bind(str(folder / "own.sock"))
    server.listen(5)
    client.connect(str(folder / "own.sock"))
    KEPT.append(server)
    if argument == "closed":
        client.close()
    else:
        client.send(b"early")
        KEPT.append(client)
    return None


@feature
def watch(_folder: Path, argument: str) -> Check:
    """An inotify watch on the folder ARGUMENT."""
    descriptor = checked(LIBC.inotify_init1(0x800), "inotify_init1")
    checked(LIBC.inotify_add_watch(descriptor, os.fsencode(argument), 0x100), "inotify_add_watch")
    return None


@feature
def lost_session(_folder: Path, _argument: str) -> Check:
    """A grandchild in the session of our parents, whose own parent has left it."""
    if os.fork() == 0:
        fork_sleeper()
        os.setsid()
        while True:
            signal.pause()
    time.sleep(0.1)
    return None


@feature
def pidfd_of(_folder: Path, argument: str) -> Check:
    """A pidfd of any process, by default our parent."""
    KEPT.append(os.pidfd_open(int(argument or os.getppid())))
    return None


@feature
def pidfd_of_thread(_folder: Path, _argument: str) -> Check:
    KEPT.append(system_call("pidfd_open", os.getpid(), os.O_EXCL))
    return None


@feature
def sysv_shm(_folder: Path, _argument: str) -> Check:
    number = checked(LIBC.shmget(0, 1 << 16, 0o1600), "shmget")
    address = LIBC.shmat(number, None, 0)
    LIBC.shmctl(number, 0, None)  # IPC_RMID: it goes when the last one detaches
    ctypes.memmove(address, b"hello", 5)
    return lambda: ctypes.string_at(address, 5) == b"hello"


@feature
def sysv_queue(folder: Path, _argument: str) -> Check:
    """A message queue we have written to; its id is in the file `queue`, for whoever removes it."""
    number = checked(LIBC.msgget(0, 0o1600), "msgget")
    (folder / "queue").write_text(str(number))
    checked(LIBC.msgsnd(number, struct.pack("<q4s", 1, b"text"), 4, 0), "msgsnd")
    return None


@feature
def mqueue(_folder: Path, _argument: str) -> Check:
    name = f"workload-{os.getpid()}".encode()
    KEPT.append(system_call("mq_open", name, os.O_CREAT | os.O_RDWR, 0o600, 0))
    LIBC.mq_unlink(b"/" + name)
    return None


@feature
def memfd_secret(_folder: Path, _argument: str) -> Check:
    KEPT.append(system_call("memfd_secret", 0))
    return None


@feature
def memfd_secret_mapping(_folder: Path, _argument: str) -> Check:
    descriptor = system_call("memfd_secret", 0)
    os.ftruncate(descriptor, 4096)
    memory = mmap.mmap(descriptor, 4096)
    memory[:5] = b"hello"
    KEPT.append(memory)
    os.close(descriptor)
    return None


@feature
def detached_mount(folder: Path, _argument: str) -> Check:
    """A file on a mount that has been taken out of the tree."""
    target = folder / "mount"
    target.mkdir()
    at = os.fsencode(target)
    checked(LIBC.mount(b"workload", at, b"tmpfs", 0, b"size=64k"), "mount")
    file = (target / "file").open("w")
    KEPT.append(file)
    checked(LIBC.umount2(at, 2), "umount2")  # MNT_DETACH
    return None


@feature
def hidden_path(folder: Path, _argument: str) -> Check:
    """A file over whose folder something has been mounted; the one who started us takes it off."""
    target = folder / "mount"
    target.mkdir()
    file = (target / "file").open("w")
    KEPT.append(file)
    checked(LIBC.mount(b"workload", os.fsencode(target), b"tmpfs", 0, b"size=64k"), "mount")
    (target / "file").write_text("another file of that name")
    return None


@feature
def pending_connection(_folder: Path, _argument: str) -> Check:
    """A listening TCP socket with a connection that has not been accepted."""
    server = socket.create_server(("127.0.0.1", 0))
    KEPT.extend([server, socket.create_connection(server.getsockname())])
    return None


@feature
def connecting(_folder: Path, argument: str) -> Check:
    """A TCP socket that waits for a server at 127.0.0.1, port ARGUMENT, whose queue is full."""
    client = socket.socket()
    client.setblocking(False)
    client.connect_ex(("127.0.0.1", int(argument)))
    KEPT.append(client)
    return None


@feature
def tcp_client(_folder: Path, argument: str) -> Check:
    """A connection to 127.0.0.1, port ARGUMENT."""
    client = socket.create_connection(("127.0.0.1", int(argument)))

    def check() -> bool:
        client.sendall(b"ping")
        return client.recv(4) == b"ping"

    return check


@feature
def udp_queue(_folder: Path, _argument: str) -> Check:
    one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    one.bind(("127.0.0.1", 0))
    one.sendto(b"unread", one.getsockname())
    one.settimeout(0.5)
    return lambda: one.recv(6) == b"unread"


@feature
def udp_corked(_folder: Path, _argument: str) -> Check:
    one = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    one.bind(("127.0.0.1", 0))
    one.connect(one.getsockname())
    one.setsockopt(socket.IPPROTO_UDP, 1, 1)  # UDP_CORK
    one.send(b"half")
    KEPT.append(one)
    return None


@feature
def unix_client(_folder: Path, argument: str) -> Check:
    """A stream connected to the server at the path ARGUMENT."""
    client = socket.socket(socket.AF_UNIX)
    client.connect(argument)
    KEPT.append(client)
    return None


@feature
def unix_datagram_client(_folder: Path, argument: str) -> Check:
    client = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    client.connect(argument)
    return lambda: client.send(b"x") == 1


@feature
def packet_pipe(_folder: Path, _argument: str) -> Check:
    KEPT.append(os.pipe2(os.O_DIRECT))
    return None


@feature
def epoll_escaped(_folder: Path, _argument: str) -> Check:
    """An epoll that watches a descriptor which only another process still has open."""
    reader, _writer = os.pipe()
    poll = select.epoll()
    poll.register(reader, select.EPOLLIN)
    fork_sleeper()
    os.close(reader)
    KEPT.append(poll)
    return None


@feature
def proc_of(_folder: Path, argument: str) -> Check:
    """An open /proc file of another process, by default our parent."""
    path = f"/proc/{argument or os.getppid()}/status"
    descriptor = os.open(path, os.O_RDONLY)
    return lambda: len(os.pread(descriptor, 10, 0)) > 0


@feature
def namespace_of(_folder: Path, _argument: str) -> Check:
    """A descriptor of a namespace in which no member of the task is."""
    before = os.open("/proc/self/ns/uts", os.O_RDONLY)
    checked(LIBC.unshare(0x04000000), "unshare")
    KEPT.append(os.open("/proc/self/ns/uts", os.O_RDONLY))
    checked(LIBC.setns(before, 0), "setns")
    os.close(before)
    return None


@feature
def unshared(_folder: Path, argument: str) -> Check:
    """Namespaces of our own, by the hexadecimal CLONE_NEW* flags."""
    checked(LIBC.unshare(int(argument, 16)), "unshare")
    return None


@feature
def nested_pid_namespace(_folder: Path, _argument: str) -> Check:
    checked(LIBC.unshare(0x20000000), "unshare")
    fork_sleeper()
    return None


@feature
def nested_mount_namespace(_folder: Path, _argument: str) -> Check:
    """A child with a mount namespace of its own, and a file open in it."""
    if os.fork() == 0:
        checked(LIBC.unshare(0x20000), "unshare")
        KEPT.append(os.open("/etc/hostname", os.O_RDONLY))
        while True:
            signal.pause()
    time.sleep(0.1)
    return None


@feature
def controlling_terminal(_folder: Path, _argument: str) -> Check:
    """A child that has only /dev/tty open of its terminal, whose master we have."""
    master, slave = os.openpty()
    KEPT.extend([master, slave])
    if os.fork() == 0:
        os.setsid()
        fcntl.ioctl(slave, 0x540E, 0)  # TIOCSCTTY
        KEPT.append(os.open("/dev/tty", os.O_RDWR))
        os.close(slave)
        while True:
            signal.pause()
    time.sleep(0.1)
    return None


@feature
def thread_proc_file(_folder: Path, _argument: str) -> Check:
    """An open /proc file of a thread of ours that is not the main thread."""

    def hold() -> None:
        path = f"/proc/self/task/{threading.get_native_id()}/stat"
        KEPT.append(os.open(path, os.O_RDONLY))
        time.sleep(3600)

    threading.Thread(target=hold, daemon=True).start()
    while not KEPT:
        time.sleep(0.01)
    return None


@feature
def traced_child(_folder: Path, _argument: str) -> Check:
    """A child that we trace ourselves, as a debugger would."""
    pid = fork_sleeper()
    checked(LIBC.ptrace(0x4206, pid, None, None), "ptrace seize")
    return None


@feature
def ended_leader(_folder: Path, _argument: str) -> Check:
    """A child whose main thread has ended while another thread lives on."""
    pid = os.fork()
    if pid == 0:
        threading.Thread(target=time.sleep, args=(3600,), daemon=True).start()
        # The thread alone ends, not the process: exit(2), not exit_group(2).
        LIBC.syscall(60 if os.uname().machine == "x86_64" else 93, 0)
    time.sleep(0.2)
    return None


@feature
def vfork_parent(_folder: Path, _argument: str) -> Check:
    """A child that waits in vfork(2) for a grandchild that neither ends nor calls exec."""
    if os.fork() == 0:
        entry = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)(lambda _: LIBC.pause())
        stack = ctypes.create_string_buffer(1 << 20)
        top = ctypes.c_void_p((ctypes.addressof(stack) + (1 << 20)) & ~15)
        LIBC.clone(entry, top, 0x00004000 | 0x00000100 | signal.SIGCHLD, None)
    time.sleep(0.3)
    return None


@feature
def sealed_memory(_folder: Path, _argument: str) -> Check:
    address = anonymous(1 << 20)
    ctypes.memmove(address, b"hello", 5)
    system_call("mseal", address, 1 << 20, 0)
    return lambda: LIBC.mprotect(ctypes.c_void_p(address), ctypes.c_size_t(4096), 1) < 0


@feature
def droppable_memory(_folder: Path, _argument: str) -> Check:
    address = anonymous(1 << 20, flags=0x28)
    ctypes.memmove(address, b"hello", 5)
    return lambda: ctypes.string_at(address, 5) == b"hello"


@feature
def shared_lock(folder: Path, argument: str) -> Check:
    """The lock that whoever started us took on the descriptor ARGUMENT, which we inherited."""
    return lambda: os.fstat(int(argument)).st_size >= 0 and folder.exists()


@feature
def orphan(folder: Path, _argument: str) -> Check:
    """A process that has left its parents, as daemons do; its pid is in the file `orphan`."""
    middle = os.fork()
    if middle == 0:
        lonely = os.fork()
        if lonely == 0:
            while True:
                signal.pause()
        (folder / "orphan").write_text(str(lonely))
        os._exit(0)
    os.waitpid(middle, 0)
    return None


@feature
def unsupported(_folder: Path, _argument: str) -> Check:
    raise Unsupported("nobody has it")
