"""ProcFs on made-up trees, and fdinfo, mountinfo, cgroup."""

import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snaplib.kernel import Mount, ProcFs
from snaplib.kernel.descriptors import parse_fdinfo
from snaplib.kernel.mounts import parse_cgroups, parse_mountinfo
from snaplib.testing.procfs import FakeDescriptor, FakeProc

EPOLL = (
    b"pos:\t0\nflags:\t02000002\nmnt_id:\t16\nino:\t1045\n"
    b"tfd:        5 events:       19 data:     5000000000  pos:0 ino:3 sdev:5\n"
    b"tfd:        6 events:        1 data:     6000000000  pos:0 ino:4 sdev:5\n"
)
INOTIFY = (
    b"pos:\t0\nflags:\t04000\nmnt_id:\t16\nino:\t1045\n"
    b"inotify wd:2 ino:2 sdev:fe00000 mask:fce ignored_mask:0 fhandle-bytes:8\n"
    b"inotify wd:1 ino:a111 sdev:800013 mask:800afce ignored_mask:0 fhandle-bytes:8\n"
)
LOCK = (
    b"pos:\t12\nflags:\t0100001\nmnt_id:\t27\nino:\t9\n"
    b"lock:\t1: POSIX  ADVISORY  WRITE 4711 fe:00:9 0 EOF\n"
)


@pytest.fixture
def proc(tmp_path: Path) -> FakeProc:
    return FakeProc(tmp_path)


def test_epoll_keeps_each_watched_descriptor() -> None:
    found = parse_fdinfo(9, "anon_inode:[eventpoll]", EPOLL)
    assert (found.fd, found.pos, found.mnt_id, found.inode) == (9, 0, 16, 1045)
    assert found.close_on_exec
    assert [line.split()[0] for line in found.extra["tfd"]] == ["5", "6"]


def test_inotify_lines_have_a_key_without_colon() -> None:
    found = parse_fdinfo(3, "anon_inode:inotify", INOTIFY)
    assert [line.split()[0] for line in found.extra["inotify"]] == ["wd:2", "wd:1"]
    assert not found.close_on_exec


def test_locks() -> None:
    found = parse_fdinfo(3, "/tmp/db", LOCK)
    assert found.extra["lock"] == ("1: POSIX  ADVISORY  WRITE 4711 fe:00:9 0 EOF",)
    assert found.writable
    assert not found.readable
    assert found.pos == 12


def test_old_kernels_tell_no_inode() -> None:
    assert parse_fdinfo(0, "x", b"pos:\t1\nflags:\t02\nmnt_id:\t9\n").inode is None


def test_fdinfo_without_flags_is_refused() -> None:
    with pytest.raises(ValueError, match="descriptor 4 has no flags"):
        parse_fdinfo(4, "x", b"pos:\t1\n")


@given(
    lines=st.dictionaries(
        st.text("abcdefgh-", min_size=1, max_size=8).filter(lambda key: key.strip("-") == key),
        st.lists(st.text("abc123 :[]", min_size=1, max_size=12), min_size=1, max_size=3),
        max_size=4,
    ),
    flags=st.integers(0, 0o37777777),
    pos=st.integers(0, 2**63 - 1),
)
def test_fdinfo_round_trip(lines: dict[str, list[str]], flags: int, pos: int) -> None:
    content = f"pos:\t{pos}\nflags:\t0{flags:o}\nmnt_id:\t16\nino:\t5\n"
    content += "".join(f"{key}:\t{value}\n" for key, values in lines.items() for value in values)
    found = parse_fdinfo(1, "x", content.encode())
    assert (found.flags, found.pos) == (flags, pos)
    assert found.extra == {
        key: tuple(value.strip() for value in values) for key, values in lines.items()
    }


def test_mountinfo_with_blanks_and_optional_fields() -> None:
    content = (
        rb"36 35 98:0 /mnt1 /mnt\0402\134 rw,noatime master:1 shared:7"
        rb" - ext3 /dev/my\040root rw,x=y"
        b"\n24 27 0:6 / /dev rw - devtmpfs none rw\n"
    )
    first, second = parse_mountinfo(content)
    assert first == Mount(
        mount_id=36,
        parent_id=35,
        dev=os.makedev(98, 0),
        root="/mnt1",
        mount_point="/mnt 2\\",
        options=("rw", "noatime"),
        propagation=("master:1", "shared:7"),
        fs_type="ext3",
        source="/dev/my root",
        super_options=("rw", "x=y"),
    )
    assert second.propagation == ()


def test_cgroups_of_both_versions() -> None:
    unified, named, v1 = parse_cgroups(b"0::/a:b\n1:name=systemd:/\n4:cpu,cpuacct:/x\n")
    assert (unified.hierarchy_id, unified.controllers, unified.path) == (0, (), "/a:b")
    assert named.controllers == ("name=systemd",)
    assert v1.controllers == ("cpu", "cpuacct")


def test_a_process(proc: FakeProc) -> None:
    proc.add(
        42,
        comm="we (ird\n",
        threads=(42, 43, 50),
        ns_pids=(42, 7),
        maps="1000-2000 rw-p 00000000 00:00 0\n",
        descriptors={
            10: FakeDescriptor("socket:[99]", inode=99),
            2: FakeDescriptor("/dev/null", os.O_WRONLY),
        },
        namespaces={"pid": 4026531836, "net": 4026531833},
        cmdline=("a", "", "b c"),
    )
    procfs = proc.procfs
    assert procfs.pids() == (42,)
    assert procfs.exists(42)
    assert procfs.stat(42).comm == procfs.status(42).name == procfs.comm(42) == "we (ird\n"
    assert procfs.threads(42) == (42, 43, 50)
    assert procfs.status(42).ns_pids == (42, 7)
    assert procfs.thread_stat(42, 50).pid == 50
    assert procfs.maps(42)[0].size_bytes == 4096
    assert [(one.fd, one.target) for one in procfs.descriptors(42)] == [
        (2, "/dev/null"),
        (10, "socket:[99]"),
    ]
    assert procfs.namespaces(42) == {"pid": 4026531836, "net": 4026531833}
    assert procfs.cmdline(42) == ("a", "", "b c")
    assert procfs.exe(42) == "/usr/bin/task"
    assert procfs.cgroups(42)[0].path == "/"
    assert procfs.mounts(42)[0].fs_type == "ext4"


def test_paths_that_are_not_utf8_come_back_as_they_were(proc: FakeProc) -> None:
    path = os.fsdecode(b"/data/\xff\xfe")
    proc.add(5, exe=path, cwd=path, cmdline=(path,), descriptors={3: FakeDescriptor(path)})
    assert proc.procfs.exe(5) == proc.procfs.cwd(5) == path
    assert proc.procfs.descriptors(5)[0].target == path
    assert os.fsencode(proc.procfs.cmdline(5)[0]) == b"/data/\xff\xfe"


def test_zombies_have_neither_program_nor_folder(proc: FakeProc) -> None:
    proc.add(5, state="Z", exe=None, cwd=None, cmdline=())
    assert proc.procfs.stat(5).zombie
    assert proc.procfs.exe(5) is None
    assert proc.procfs.cwd(5) is None
    assert proc.procfs.cmdline(5) == ()
    assert proc.procfs.maps(5) == ()


@pytest.mark.parametrize(
    "method",
    [
        "stat",
        "status",
        "threads",
        "children",
        "tree",
        "maps",
        "smaps",
        "descriptors",
        "namespaces",
        "mounts",
        "cgroups",
        "exe",
        "cwd",
        "cmdline",
        "comm",
    ],
)
def test_no_such_process(proc: FakeProc, method: str) -> None:
    with pytest.raises(ProcessLookupError, match="no process 77"):
        getattr(proc.procfs, method)(77)


def test_tree_has_parents_before_children_with_and_without_children_files(proc: FakeProc) -> None:
    family = {10: (12, 11), 11: (), 12: (30, 20), 20: (15,), 30: (), 15: (), 99: ()}
    parent = {child: pid for pid, children in family.items() for child in children}
    for pid, children in family.items():
        proc.add(pid, ppid=parent.get(pid, 1), children=children)
    expected = (10, 11, 12, 20, 30, 15)
    assert proc.procfs.tree(10) == expected
    for pid in family:
        (proc.root / str(pid) / "task" / str(pid) / "children").unlink()
    assert proc.procfs.tree(10) == expected
    assert proc.procfs.children(12) == (20, 30)


def test_children_of_all_threads_count(proc: FakeProc) -> None:
    proc.add(1, threads=(1, 2), children=(5,))
    (proc.root / "1/task/2/children").write_text("4 ")
    assert proc.procfs.children(1) == (4, 5)


def test_many_descriptors_and_mappings_are_complete(proc: FakeProc) -> None:
    lines = "".join(
        f"{page:x}000-{page + 1:x}000 rw-p 00000000 00:00 0 \n" for page in range(1, 10_001)
    )
    proc.add(9, maps=lines, descriptors={fd: FakeDescriptor("x") for fd in range(2003)})
    assert len(proc.procfs.maps(9)) == 10_000
    assert [one.fd for one in proc.procfs.descriptors(9)] == list(range(2003))


def test_our_own_process_is_seen_as_it_is() -> None:
    procfs, pid = ProcFs(), os.getpid()
    assert procfs.stat(pid).pid == procfs.status(pid).pid == pid
    assert procfs.stat(pid).ppid == os.getppid()
    assert procfs.status(pid).uids == (os.getresuid()[0], *os.getresuid()[1:], os.geteuid())
    assert procfs.status(pid).cpus_allowed == os.sched_getaffinity(0)
    assert pid in procfs.threads(pid)
    assert any(one.path == "[stack]" for one in procfs.maps(pid))
    reading, writing = os.pipe()
    try:
        inode = os.fstat(writing).st_ino
        found = {one.fd: one for one in procfs.descriptors(pid)}
        assert found[reading].target == found[writing].target == f"pipe:[{inode}]"
        assert found[writing].writable
        assert found[reading].readable
    finally:
        os.close(reading)
        os.close(writing)
