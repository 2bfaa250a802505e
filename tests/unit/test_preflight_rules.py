"""The rules of preflight on made-up records."""

from __future__ import annotations

import os
import re
import socket
import stat
from pathlib import Path
from typing import Any

import attrs
import pytest

from snaplib.checkpoint.preflight.checks import RULES, find_obstacles
from snaplib.checkpoint.preflight.obstacle import SEVERITIES, Obstacle
from snaplib.checkpoint.preflight.scene import FileFacts, Holder, Member, Scene, Stranger, inode_in
from snaplib.kernel import Descriptor, Mapping, Mount
from snaplib.kernel.process import parse_stat, parse_status
from snaplib.kernel.sockets import TCP_LISTEN, Socket, SocketTable

OURS = {"pid": 1, "mnt": 2, "net": 3, "ipc": 4, "user": 5, "uts": 6, "cgroup": 7, "time": 8}
MOUNTS = {
    24: Mount(24, 1, os.makedev(8, 1), "/", "/", (), (), "ext4", "sda1", ()),
    25: Mount(25, 24, os.makedev(0, 21), "/", "/proc", (), (), "proc", "proc", ()),
}


def descriptor(fd: int, target: str, *, flags: int = os.O_RDWR, mnt_id: int = 24, **extra: Any):
    lines = {key.rstrip("_"): (value,) for key, value in extra.items()}
    return Descriptor(fd, target, flags, 0, mnt_id, 7, lines)


def facts(mode: int = stat.S_IFREG, **changes: Any) -> FileFacts:
    return attrs.evolve(FileFacts(mode, os.makedev(8, 1), 7, 1, 0, 4096), **changes)


def member(
    pid: int = 100,
    *descriptors: Descriptor,
    ppid: int = 1,
    session: int = 100,
    ns_session: int | None = None,
    state: str = "S",
    tty: int = 0,
    **more: Any,
) -> Member:
    line = f"{pid} (task) {state} {ppid} {session} {session} {tty} -1 0 {'0 ' * 45}"
    status = (
        f"Name:\ttask\nState:\t{state} (x)\nTgid:\t{pid}\nPid:\t{pid}\nPPid:\t{ppid}\n"
        f"TracerPid:\t0\nUid:\t0 0 0 0\nGid:\t0 0 0 0\nNSpid:\t{pid}\nNStgid:\t{pid}\n"
        f"NSsid:\t{session if ns_session is None else ns_session}\n"
    )
    settings = {"namespaces": OURS, "threads": (pid,), "descriptors": descriptors} | more
    return Member(parse_stat(line.encode()), parse_status(status.encode()), **settings)


def scene(*members: Member, **changes: Any) -> Scene:
    settings: dict[str, Any] = {"dumper_namespaces": OURS, "mounts": MOUNTS}
    return Scene({one.pid: one for one in members}, members[0].pid, **(settings | changes))


def codes(*members: Member, **changes: Any) -> list[str]:
    return [one.code for one in find_obstacles(scene(*members, **changes))]


def test_nothing_stands_in_the_way_of_a_plain_process() -> None:
    files = {3: facts(path_leads_to=(os.makedev(8, 1), 7))}
    assert codes(member(100, descriptor(3, "/data/file"), files=files)) == []


@pytest.mark.parametrize(
    ("target", "code"),
    [
        ("anon_inode:[eventpoll]", None),
        ("anon_inode:inotify", None),
        ("anon_inode:[inotify]", None),
        ("anon_inode:[pidfd]", None),
        ("anon_inode:[io_uring]", "io-uring-descriptor"),
        ("anon_inode:bpf_link", "bpf-link"),
        ("anon_inode:[bpf-map]", "bpf-map"),
        ("anon_inode:kvm-vm", "unknown-descriptor"),
    ],
)
def test_kernel_objects(target: str, code: str | None) -> None:
    assert codes(member(100, descriptor(3, target))) == ([code] if code else [])


def test_pidfds() -> None:
    target = "anon_inode:[pidfd]"
    found = [descriptor(number, target, Pid=str(pid)) for number, pid in enumerate((100, -1, 55))]
    obstacles = find_obstacles(scene(member(100, *found), names={55: "sshd"}))
    assert [(one.code, one.subject) for one in obstacles] == [("pidfd-outside", "fd 2")]
    assert "pid 55 (sshd)" in obstacles[0].message


@pytest.mark.parametrize(
    ("mode", "major", "minor", "code"),
    [
        (stat.S_IFCHR, 1, 3, None),
        (stat.S_IFCHR, 1, 11, None),
        (stat.S_IFCHR, 4, 1, None),
        (stat.S_IFCHR, 4, 64, "device"),
        (stat.S_IFCHR, 5, 1, None),
        (stat.S_IFCHR, 10, 200, "tun-device"),
        (stat.S_IFCHR, 10, 229, "device"),
        (stat.S_IFCHR, 10, 235, None),
        (stat.S_IFCHR, 188, 0, None),
        (stat.S_IFCHR, 195, 0, "device"),
        (stat.S_IFCHR, 226, 128, "device"),
        (stat.S_IFBLK, 8, 0, "block-device"),
    ],
)
def test_devices(mode: int, major: int, minor: int, code: str | None) -> None:
    files = {3: facts(mode, rdev=os.makedev(major, minor))}
    one = member(100, descriptor(3, "/dev/thing"), files=files)
    assert codes(one) == ([code] if code else [])


def test_paths() -> None:
    device = os.makedev(8, 1)
    found = (
        descriptor(3, "/here"),
        descriptor(4, "/replaced"),
        descriptor(5, "/gone", mnt_id=99),
        descriptor(6, "/linked (deleted)"),
        descriptor(7, "/deleted (deleted)"),
        descriptor(8, "/large (deleted)"),
        descriptor(9, "/memory (deleted)", mnt_id=99),
    )
    files = {
        3: facts(path_leads_to=(device, 7)),
        4: facts(path_leads_to=(device, 8)),
        5: facts(file_system=0xEF53),
        6: facts(links=1),
        7: facts(links=0),
        8: facts(links=0, allocated_bytes=1 << 31),
        9: facts(links=0, dev=1, allocated_bytes=1 << 31),
    }
    obstacles = find_obstacles(scene(member(100, *found, files=files), internal_dev=1))
    assert {one.subject: one.code for one in obstacles} == {
        "fd 4": "path-replaced",
        "fd 5": "mount-gone",
        "fd 6": "link-lost",
        "fd 8": "deleted-file-too-large",
    }


@pytest.mark.parametrize(
    ("path", "own_proc", "code"),
    [
        ("/proc/meminfo", False, None),
        ("/proc/100/stat", False, None),
        ("/proc/100/task/100/stat", False, None),
        ("/proc/100/task/101/stat", False, "proc-thread"),
        ("/proc/55/stat", False, "proc-outside"),
        ("/proc/66/stat", False, None),
        ("/proc/1/stat", True, None),
        ("/proc/66/stat", True, "proc-outside"),
    ],
)
def test_proc_files(path: str, own_proc: bool, code: str | None) -> None:
    one = member(100, descriptor(3, path, mnt_id=25))
    found = codes(one, names={55: "sshd"}, own_proc=own_proc)
    assert found == ([code] if code else [])


def test_terminals() -> None:
    slave, master = os.makedev(136, 5), os.makedev(5, 2)
    terminal = descriptor(0, "/dev/pts/5")
    lone = member(100, terminal, files={0: facts(stat.S_IFCHR, rdev=slave, dev=26)})
    assert codes(lone) == ["terminal-outside"]
    assert codes(lone, streams=frozenset({f"tty[{slave:x}:1a]"})) == []
    other = member(
        101,
        descriptor(3, "/dev/ptmx", **{"tty-index": "5"}),
        ppid=100,
        files={3: facts(stat.S_IFCHR, rdev=master)},
    )
    assert codes(lone, other) == []


def test_pipes() -> None:
    def end(pid: int, flags: int) -> Member:
        return member(pid, descriptor(1, "pipe:[7]", flags=flags), ppid=100)

    writer, reader = end(100, os.O_WRONLY), end(101, os.O_RDONLY)
    holders = {"pipe:[7]": (Holder(55, "less", readable=True, writable=False),)}
    assert codes(writer, reader, holders=holders) == []
    assert codes(writer) == []
    assert codes(writer, holders=holders, streams=frozenset({"pipe:[7]"})) == []
    (found,) = find_obstacles(scene(writer, holders=holders))
    assert (found.code, found.severity) == ("pipe-outside", "lost")
    assert "to pid 55 (less)" in found.message
    # Another writer outside does not make a reader.
    more = {"pipe:[7]": (Holder(55, "tee", readable=False, writable=True),)}
    assert codes(writer, holders=more) == []
    assert codes(end(100, os.O_WRONLY | os.O_DIRECT), reader) == ["packet-pipe"]


def unix(inode: int, peer: int | None = None, **more: Any) -> Socket:
    return Socket(inode, socket.AF_UNIX, socket.SOCK_STREAM, 0, 1, peer_inode=peer, **more)


def with_sockets(*found: Socket, mine: tuple[int, ...], **names: str) -> Scene:
    descriptors = [descriptor(inode, f"socket:[{inode}]") for inode in mine]
    sockets = dict.fromkeys(mine, "UNIX-STREAM")
    sockets |= {int(fd.removeprefix("fd")): name for fd, name in names.items()}
    table = SocketTable({one.inode: one for one in found}, frozenset({socket.AF_UNIX}))
    return scene(member(100, *descriptors, sockets=sockets), sockets=table)


def test_unix_sockets() -> None:
    def one_code(*found: Socket, mine: tuple[int, ...]) -> list[str]:
        return [one.code for one in find_obstacles(with_sockets(*found, mine=mine))]

    assert one_code(unix(7, 8), unix(8, 7), mine=(7, 8)) == []
    assert one_code(unix(7, 8), unix(8, 7), mine=(7,)) == ["unix-outside"]
    assert one_code(mine=(7,)) == ["socket-of-other-namespace"]
    assert one_code(unix(7, shutdown=3), mine=(7,)) == []
    assert one_code(unix(7, 0), mine=(7,)) == ["unix-dangling"]
    server = attrs.evolve(unix(9, pending_inodes=(7,)), state=TCP_LISTEN)
    assert one_code(unix(7, 0), server, mine=(7, 9)) == []
    assert one_code(unix(7, 0), server, mine=(7,)) == ["unix-outside"]
    assert one_code(unix(7, 0, send_queue=5), server, mine=(7, 9)) == ["unix-not-accepted"]
    closed = attrs.evolve(server, pending_inodes=(0,))
    assert one_code(closed, mine=(9,)) == ["unix-connection-closed"]


def test_socket_kinds() -> None:
    found = find_obstacles(with_sockets(mine=(5, 6, 7), fd5="MPTCPv6", fd6="SMC", fd7="UDP-Lite"))
    assert [(one.subject, one.code) for one in found] == [
        ("fd 5", "mptcp-socket"),
        ("fd 6", "socket-family"),
    ]


@pytest.mark.parametrize(
    ("state", "tcp", "code"),
    [
        (1, "auto", "tcp-outside"),
        (1, "established", "tcp-outside"),
        (1, "close", "tcp-closed"),
        (2, "auto", "tcp-outside"),
        (3, "established", "tcp-state"),
        (7, "auto", None),
        (8, "established", "tcp-outside"),
    ],
)
def test_tcp(state: int, tcp: str, code: str | None) -> None:
    one = Socket(7, socket.AF_INET, 1, socket.IPPROTO_TCP, state, "10.0.0.1:5", "10.0.0.2:6")
    found = with_sockets(one, mine=(7,), fd7="TCP")
    obstacles = find_obstacles(attrs.evolve(found, tcp=tcp))
    assert [each.code for each in obstacles] == ([code] if code else [])


def tcp_socket(
    local: str, remote: str = "", state: int = 1, inode: int = 7, queue: int = 0
) -> Socket:
    family = socket.AF_INET6 if local.startswith("[") else socket.AF_INET
    return Socket(inode, family, 1, socket.IPPROTO_TCP, state, local, remote, queue)


@pytest.mark.parametrize(
    ("local", "remote", "library", "found"),
    [
        ("10.0.0.1:5", "10.0.0.2:6", "", ["tcp-outside"]),
        ("10.0.0.1:5", "10.0.0.2:443", "", ["tcp-outside", "tcp-tls"]),
        ("10.0.0.1:993", "10.0.0.2:5", "", ["tcp-outside", "tcp-tls"]),
        ("10.0.0.1:5", "10.0.0.2:6", "/usr/lib/libssl.so.3", ["tcp-outside", "tcp-tls"]),
        ("10.0.0.1:5", "10.0.0.2:6", "/usr/lib/libgnutls.so.30.34.3", ["tcp-outside", "tcp-tls"]),
        ("10.0.0.1:5", "10.0.0.2:6", "/usr/lib/libsslcommon.txt", ["tcp-outside"]),
        ("10.0.0.1:5", "10.0.0.1:6", "", ["tcp-host"]),
        ("127.0.0.1:5", "127.0.0.1:6", "/usr/lib/libssl.so.3", ["tcp-host"]),
        ("[::ffff:127.0.0.1]:5", "[::ffff:127.0.0.1]:6", "", ["tcp-host"]),
        ("[2001:db8::1]:5", "[2001:db8::2]:6", "", ["tcp-outside"]),
    ],
)
def test_connections_with_others(local: str, remote: str, library: str, found: list[str]) -> None:
    one = with_sockets(tcp_socket(local, remote), mine=(7,), fd7="TCP")
    (owner,) = one.members.values()
    if library:
        one = attrs.evolve(
            one, members={owner.pid: attrs.evolve(owner, mappings=(mapping(library),))}
        )
    obstacles = find_obstacles(one)
    assert [each.code for each in obstacles] == found
    assert all(local in each.message and each.severity == "warning" for each in obstacles)
    assert (
        not library or "tcp-tls" not in found or library.rpartition("/")[2] in obstacles[-1].message
    )


def test_a_connection_within_the_task_in_two_guises() -> None:
    pair = (
        tcp_socket("10.0.0.1:5", "10.0.0.1:443"),
        tcp_socket("[::ffff:10.0.0.1]:443", "[::ffff:10.0.0.1]:5", inode=8),
    )
    assert not find_obstacles(with_sockets(*pair, mine=(7, 8), fd7="TCP", fd8="TCPv6"))


def test_tls_of_the_kernel() -> None:
    one = with_sockets(tcp_socket("10.0.0.1:5", "10.0.0.2:6"), mine=(7,), fd7="TCP")
    (owner,) = one.members.values()
    one = attrs.evolve(one, members={owner.pid: attrs.evolve(owner, kernel_tls=frozenset([7]))})
    assert find_obstacles(one)[0].code == "tcp-kernel-tls"
    closed = find_obstacles(attrs.evolve(one, tcp="close"))
    assert [each.code for each in closed] == ["tcp-closed"]


@pytest.mark.parametrize(
    ("local", "queue", "tcp", "found"),
    [
        ("0.0.0.0:80", 0, "auto", []),
        ("[::]:80", 0, "auto", []),
        ("127.0.0.1:80", 0, "auto", []),
        ("[::1]:80", 0, "auto", []),
        ("10.0.0.1:80", 0, "close", [("warning", "tcp-server-address")]),
        ("0.0.0.0:80", 2, "auto", [("lost", "tcp-not-accepted")]),
        ("0.0.0.0:80", 2, "established", [("fatal", "tcp-not-accepted")]),
    ],
)
def test_servers(local: str, queue: int, tcp: str, found: list[tuple[str, str]]) -> None:
    one = tcp_socket(local, state=TCP_LISTEN, queue=queue)
    obstacles = find_obstacles(attrs.evolve(with_sockets(one, mine=(7,), fd7="TCP"), tcp=tcp))
    assert [(each.severity, each.code) for each in obstacles] == found


def test_netlink() -> None:
    plain = Socket(7, socket.AF_NETLINK, 3, 0, 7, group_words=1)
    for one, code in (
        (plain, []),
        (attrs.evolve(plain, receive_queue=100), ["netlink-unread"]),
        (attrs.evolve(plain, group_words=2), ["netlink-groups"]),
    ):
        found = find_obstacles(with_sockets(one, mine=(7,), fd7="NETLINK"))
        assert [each.code for each in found] == code


def mapping(path: str = "", perms: str = "rw-p", flags: str = "rd wr mr", inode: int = 0):
    return Mapping(4096, 8192, perms, 0, 1 if inode else 0, inode, path, frozenset(flags.split()))


@pytest.mark.parametrize(
    ("one", "code"),
    [
        (mapping("[heap]"), None),
        (mapping("[vvar]", "r--p", "rd mr pf io de dd"), None),
        (mapping("[vdso]", "r-xp", "rd ex mr mw me de sl"), None),
        (mapping("/dev/fb0", "rw-s", "rd wr sh io pf", 9), None),
        (mapping("/dev/mem", "rw-p", "rd wr io pf", 9), "device-memory"),
        (mapping("anon_inode:[io_uring]", "rw-s", inode=9), "io-uring-mapping"),
        (mapping("anon_inode:[perf_event]", "rw-s", inode=9), "kernel-mapping"),
        (mapping("/secretmem (deleted)", "rw-s", inode=9), "secret-memory"),
        (mapping("[uprobes]", "--xp"), "uprobes"),
        (mapping("/SYSV00000000 (deleted)", "rw-s", inode=9), "sysv-shared-memory"),
        (mapping("", flags="rd wr sl"), "sealed-memory"),
        (mapping("", flags="rd wr dp"), "droppable-memory"),
    ],
)
def test_mappings(one: Mapping, code: str | None) -> None:
    assert codes(member(100, mappings=(one,))) == ([code] if code else [])


def test_sysv_shared_memory_in_an_ipc_namespace_of_its_own() -> None:
    one = member(
        100,
        mappings=(mapping("/SYSV00000000 (deleted)", "rw-s", inode=9),),
        namespaces=OURS | {"ipc": 44},
    )
    assert codes(one) == []


def test_processes() -> None:
    assert codes(member(100, tracers={100: 55, 101: 55}, threads=(100, 101))) == ["traced"]
    assert codes(member(100), member(101, ppid=100, state="Z")) == []
    assert codes(member(100), member(101, ppid=100, state="Z", threads=(101, 102))) == [
        "main-thread-ended"
    ]
    assert codes(member(100, stuck_in=58)) == ["vfork-parent"]
    assert codes(member(100, stuck_in=0)) == ["uninterruptible"]
    assert codes(member(100), strangers=(Stranger(55, "daemon", True),)) == ["orphan"]


def test_sessions() -> None:
    assert codes(member(100, session=50)) == ["session-outside"]
    assert codes(member(100, session=50), launched=True) == []
    assert codes(member(100, session=50, ns_session=0)) == ["session-outside-namespace"]
    root, child = member(100), member(101, ppid=100, session=101)
    assert codes(root, child, member(102, ppid=101, session=101)) == []
    assert codes(root, child, member(102, ppid=101, session=100)) == []
    assert codes(root, child, member(102, ppid=101, session=77)) == ["session-leader-lost"]
    assert codes(root, child, member(102, ppid=100, session=77)) == ["session-leader-ended"]
    assert codes(root, child, member(102, ppid=100, session=101)) == []


@pytest.mark.parametrize(
    ("changes", "found"),
    [
        ({"user": 55}, ["user-namespace"]),
        ({"mnt": 55}, ["mount-namespace"]),
        ({"pid": 55}, ["pid-namespace"]),
        ({"uts": 55, "ipc": 56, "cgroup": 57, "net": 58}, []),
        ({"time_for_children": 55}, ["time-namespace"]),
    ],
)
def test_namespaces_of_the_root(changes: dict[str, int], found: list[str]) -> None:
    assert codes(member(100, namespaces=OURS | changes)) == found


def test_network_namespace_of_its_own() -> None:
    one = member(100, namespaces=OURS | {"net": 55})
    assert codes(one) == []
    assert codes(one, interfaces=("eth0",)) == ["network-namespace"]


def test_nested_namespaces() -> None:
    root = member(100, namespaces=OURS | {"uts": 55})
    for uts, found in ((55, []), (6, []), (77, ["nested-namespace"])):
        assert codes(root, member(101, ppid=100, namespaces=OURS | {"uts": uts})) == found


def test_namespace_descriptors() -> None:
    root = member(100, descriptor(3, "net:[3]"), descriptor(4, "net:[99]"))
    (found,) = find_obstacles(scene(root))
    assert (found.code, found.subject) == ("namespace-outside", "fd 4")


def test_watches() -> None:
    inside = descriptor(3, "anon_inode:inotify", inotify="wd:1 ino:2 sdev:800001 mask:100")
    outside = descriptor(4, "anon_inode:inotify", inotify="wd:1 ino:2 sdev:800002 mask:100")
    (found,) = find_obstacles(scene(member(100, inside, outside)))
    assert (found.code, found.subject) == ("watch-unreachable", "fd 4")


def test_locks() -> None:
    def lock(owner: int, kind: str = "WRITE") -> Member:
        line = f"1: FLOCK  ADVISORY  {kind} {owner} 08:01:7 0 EOF"
        return member(100, descriptor(3, "/data/lock", lock=line))

    names = {55: "flock"}
    assert codes(lock(55), names=names) == ["lock-outside"]
    assert codes(lock(55, "READ"), names=names) == []
    assert codes(lock(100), names=names) == []
    assert codes(lock(66), names=names) == []


def test_the_worst_comes_first_and_each_once() -> None:
    one = member(
        100,
        descriptor(3, "anon_inode:[io_uring]"),
        mappings=(mapping("", flags="sl"),),
        session=50,
    )
    found = find_obstacles(scene(one))
    assert [each.severity for each in found] == list(SEVERITIES)
    assert [each.fatal for each in found] == [True, False, False]
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        found[0].code = "other"  # type: ignore[misc]


def test_every_check_is_a_rule() -> None:
    from snaplib.checkpoint.preflight import checks  # noqa: PLC0415

    modules = (
        *(
            checks.connections,
            checks.descriptors,
            checks.files,
            checks.mappings,
            checks.namespaces,
            checks.pipes,
        ),
        *(checks.processes, checks.sockets, checks.terminals),
    )
    made = {getattr(module, name) for module in modules for name in module.__all__}
    assert {one for one in made if one.__name__.startswith("check_")} == set(RULES)


def test_the_manual_knows_every_code() -> None:
    top = Path(__file__).parents[2]
    manual = (top / "docs/preflight.md").read_text()
    told = set(
        re.findall(
            r"`([a-z0-9]+(?:-[a-z0-9]+)*)`",
            "\n".join(line for line in manual.splitlines() if line.startswith("| `")),
        )
    )
    sources = (top / "snaplib/checkpoint/preflight").glob("*.py")
    words = set(re.findall(r'"([a-z0-9]+(?:-[a-z0-9]+)*)"', "".join(map(Path.read_text, sources))))
    assert told <= words
    # Words of the kernel's, not codes.
    assert {word for word in words if "-" in word} - {"bpf-prog", "tty-index"} <= told


def test_inodes() -> None:
    assert inode_in("socket:[12]", "socket") == 12
    assert inode_in("pipe:[12]", "socket") is None
    assert inode_in("socket:[x]", "socket") is None


@pytest.mark.parametrize(
    ("capabilities", "uid", "found"),
    [
        ("000001ffffffffff", "33 33 33 33", []),
        ("000001fffeffffff", "33 33 33 33", ["limits-hidden"]),
        ("000001fffeffffff", "0 33 0 33", ["limits-hidden"]),
        ("000001fffeffffff", "0 0 0 33", []),
    ],
)
def test_limits_of_other_users(capabilities: str, uid: str, found: list[str]) -> None:
    ids = "Name:\tx\nState:\tS (x)\nTgid:\t1\nPid:\t1\nPPid:\t0\nTracerPid:\t0\nGid:\t0 0 0 0\nNSpid:\t1\n"
    ours = parse_status(f"{ids}Uid:\t0 0 0 0\nCapEff:\t{capabilities}\n".encode())
    one = attrs.evolve(member(100), status=parse_status(f"{ids}Uid:\t{uid}\n".encode()))
    assert [
        o.code for o in find_obstacles(scene(one, dumper_status=ours)) if o.code == "limits-hidden"
    ] == found


def test_an_obstacle_can_go_into_a_set() -> None:
    one = Obstacle("code", "fatal", 1, 1, "comm", "fd 1", "message", "remedy")
    assert len({one, attrs.evolve(one)}) == 1
