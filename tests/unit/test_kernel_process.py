"""stat and status: odd names, missing lines, garbage."""

import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snaplib.kernel.process import parse_stat, parse_status

#: Whatever prctl(PR_SET_NAME) takes: up to 15 bytes without NUL.
COMMS = st.binary(min_size=0, max_size=15).filter(lambda comm: b"\0" not in comm)

STAT_TAIL = b" S 7 8 9 34816 10 4194560 11 12 13 14 15 16 17 18 20 -5 3 0 4242 8192 2 0 0 0 0 0 0\n"


def status_text(comm: bytes, **more: str) -> bytes:
    escaped = comm.replace(b"\\", b"\\\\").replace(b"\n", b"\\n")
    lines = {
        "State": "S (sleeping)",
        "Tgid": "41",
        "Pid": "42",
        "PPid": "7",
        "TracerPid": "0",
        "Uid": "1\t2\t3\t4",
        "Gid": "5\t6\t7\t8",
        **more,
    }
    text = "".join(f"{key}:\t{value}\n" for key, value in lines.items())
    return b"Name:\t" + escaped + b"\n" + text.encode()


@given(comm=COMMS, pid=st.integers(1, 2**22))
def test_stat_gives_back_any_name_and_the_numbers_behind_it(comm: bytes, pid: int) -> None:
    stat = parse_stat(str(pid).encode() + b" (" + comm + b")" + STAT_TAIL)
    assert os.fsencode(stat.comm) == comm
    assert (stat.pid, stat.ppid, stat.process_group, stat.session) == (pid, 7, 8, 9)
    assert (stat.tty, stat.nice, stat.threads, stat.start_ticks) == (34816, -5, 3, 4242)
    assert stat.vm_bytes == 8192
    assert stat.rss_bytes == 2 * os.sysconf("SC_PAGE_SIZE")


def test_a_name_that_looks_like_the_fields_behind_it_does_not_mislead() -> None:
    stat = parse_stat(b"5 (x) R 1 (\n) " + b")" + STAT_TAIL)
    assert stat.comm == "x) R 1 (\n) "
    assert stat.state == "S"


@pytest.mark.parametrize("content", [b"", b"5", b"5 (x", b"5 (x) S 1", b") 5 ("])
def test_stat_that_is_none_is_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match="not a stat line"):
        parse_stat(content)


@pytest.mark.parametrize(
    ("flags", "kernel_thread"), [(0x00200040, True), (0x400000, False), (0, False)]
)
def test_a_kernel_thread_is_known_by_its_flag(flags: int, kernel_thread: bool) -> None:
    tail = STAT_TAIL.replace(b"4194560", str(flags).encode())
    assert parse_stat(b"2 (kthreadd)" + tail).kernel_thread is kernel_thread


@given(comm=COMMS)
def test_status_gives_back_any_name(comm: bytes) -> None:
    status = parse_status(status_text(comm))
    assert os.fsencode(status.name) == comm
    assert (status.pid, status.tgid, status.ppid) == (42, 41, 7)
    assert status.uids == (1, 2, 3, 4)
    assert status.gids == (5, 6, 7, 8)


def test_lines_this_kernel_lacks_come_out_empty() -> None:
    status = parse_status(status_text(b"x"))
    assert status.ns_pids == (42,)
    assert status.ns_tgids == (41,)
    assert status.vm_rss_bytes == 0
    assert status.seccomp == 0
    assert status.cpus_allowed == frozenset()


def test_all_lines() -> None:
    status = parse_status(
        status_text(
            b"x",
            NSpid="42\t7\t1",
            NSpgid="42\t7\t1",
            VmRSS="    2048 kB",
            VmSwap="       4 kB",
            HugetlbPages="    2048 kB",
            CapEff="000001fffeffffff",
            NoNewPrivs="1",
            Seccomp="2",
            Groups="4 24 ",
            Threads="17",
            Cpus_allowed_list="0-2,5,9-9",
        )
    )
    assert status.ns_pids == (42, 7, 1)
    assert status.vm_rss_bytes == 2048 * 1024
    assert status.vm_swap_bytes == 4096
    assert status.hugetlb_bytes == 2 << 20
    assert status.effective_capabilities == 0x1FFFEFFFFFF
    assert status.no_new_privs
    assert status.seccomp == 2
    assert status.groups == (4, 24)
    assert status.threads == 17
    assert status.cpus_allowed == {0, 1, 2, 5, 9}


def test_status_without_a_line_that_all_kernels_print_is_refused() -> None:
    with pytest.raises(ValueError, match="no line Uid"):
        parse_status(b"Name:\tx\nState:\tS\nTgid:\t1\nPid:\t1\nPPid:\t0\nTracerPid:\t0\n")
