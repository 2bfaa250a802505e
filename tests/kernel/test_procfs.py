"""ProcFs and the system calls on real processes, against an independent witness."""

from __future__ import annotations

import ctypes
import os
import resource
import subprocess
import sys
import time

import psutil
import pytest

from snaplib.kernel import ProcFs
from snaplib.kernel.syscalls import (
    KCMP_FILE,
    KCMP_VM,
    kcmp,
    libc_function,
    pidfd_getfd,
    process_vm_read,
    syscall,
)

#: A prime number, so that a count that is right by chance is unlikely.
_FILES = 23

HOLDER = """
import mmap, sys, tempfile
files = [tempfile.TemporaryFile() for _ in range(23)]
for position, file in enumerate(files):
    file.write(b"x" * position)
    file.flush()
maps = [mmap.mmap(-1, 4096 * (number + 1)) for number in range(23)]
for one in maps:
    one.write(b"x" * len(one))
print(flush=True)
sys.stdin.read()
"""


@pytest.fixture
def holder(eventually):
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        eventually(lambda: ProcFs().stat(process.pid).state == "S", "it waits")
        yield process
        process.kill()


def test_psutil_says_the_same(holder) -> None:
    procfs, witness = ProcFs(), psutil.Process(holder.pid)
    stat, status = procfs.stat(holder.pid), procfs.status(holder.pid)
    assert stat.ppid == status.ppid == witness.ppid() == os.getpid()
    assert stat.comm == witness.name()[:15]
    assert procfs.exe(holder.pid) == witness.exe()
    assert procfs.cwd(holder.pid) == witness.cwd()
    assert list(procfs.cmdline(holder.pid)) == witness.cmdline()
    assert stat.nice == witness.nice()
    assert status.threads == stat.threads == len(procfs.threads(holder.pid))
    assert status.threads == witness.num_threads()
    # The kernel sums up what its CPUs count for themselves only now and then (proc_pid_statm(5)).
    assert stat.rss_bytes == pytest.approx(witness.memory_info().rss, abs=1 << 20)
    assert status.vm_rss_bytes == pytest.approx(stat.rss_bytes, abs=1 << 20)
    assert set(status.cpus_allowed) == set(witness.cpu_affinity())
    assert len(procfs.descriptors(holder.pid)) == witness.num_fds()
    boot = psutil.boot_time()
    assert stat.start_ticks / os.sysconf("SC_CLK_TCK") + boot == pytest.approx(
        witness.create_time(), abs=1.5
    )
    expected = sum(region.rss for region in witness.memory_maps(grouped=False))
    assert sum(one.rss_bytes or 0 for one in procfs.smaps(holder.pid)) == expected


def test_descriptors_have_their_positions(holder) -> None:
    files = [one for one in ProcFs().descriptors(holder.pid) if one.fd > 2]
    assert sorted(one.pos for one in files) == list(range(_FILES))
    assert len({one.inode for one in files}) == _FILES
    assert all(one.readable and one.writable and one.close_on_exec for one in files)


def test_children_of_a_process(holder) -> None:
    assert holder.pid in ProcFs().children(os.getpid())
    assert holder.pid in ProcFs().tree(os.getpid())


def test_many_descriptors_and_mappings_are_read_in_time() -> None:
    procfs, own = ProcFs(), os.getpid()
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    count = min(20_000, hard) - 200
    page = os.sysconf("SC_PAGE_SIZE")
    mmap = libc_function(
        "mmap", ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int,
        ctypes.c_long, restype=ctypes.c_long,
    )  # fmt: skip
    munmap = libc_function("munmap", ctypes.c_void_p, ctypes.c_size_t)
    mprotect = libc_function("mprotect", ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    opened = [os.open(os.devnull, os.O_RDONLY) for _ in range(count)]
    # Every second page of one mapping may be written to: each page is a mapping of its own.
    start = mmap(None, 10_000 * page, 1, 0x22, -1, 0)
    for number in range(0, 10_000, 2):
        mprotect(start + number * page, page, 3)
    try:
        began = time.process_time()
        assert len(procfs.descriptors(own)) >= count
        described = time.process_time()
        assert len(procfs.maps(own)) >= 10_000
        mapped = time.process_time()
        assert len(procfs.smaps(own)) >= 10_000
        done = time.process_time()
    finally:
        munmap(start, 10_000 * page)
        for descriptor in opened:
            os.close(descriptor)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    # Ours alone counts, and some thirty times what an idle machine takes.
    assert described - began < 15
    assert mapped - described < 3
    assert done - mapped < 9


@pytest.mark.require("process_vm_readv")
def test_system_calls_on_another_process(holder) -> None:
    procfs = ProcFs()
    auxv = next(one for one in procfs.maps(holder.pid) if one.path.startswith("/"))
    assert process_vm_read(holder.pid, auxv.start, 4) == b"\x7fELF"
    with pytest.raises(OSError, match="process_vm_readv"):
        process_vm_read(holder.pid, 4096, 1)
    pidfd = os.pidfd_open(holder.pid)
    file = next(one for one in procfs.descriptors(holder.pid) if one.pos == _FILES - 1)
    ours = pidfd_getfd(pidfd, file.fd)
    try:
        assert os.fstat(ours).st_ino == file.inode
        assert kcmp(os.getpid(), holder.pid, KCMP_FILE, ours, file.fd)
        assert not kcmp(os.getpid(), holder.pid, KCMP_FILE, 0, file.fd)
        assert not kcmp(os.getpid(), holder.pid, KCMP_VM)
    finally:
        os.close(ours)
        os.close(pidfd)


def test_a_failed_system_call_is_named() -> None:
    with pytest.raises(OSError, match="pidfd_getfd: Bad file descriptor"):
        syscall("pidfd_getfd", 2**31 - 1, 0, 0)
