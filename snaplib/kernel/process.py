"""One process as /proc tells it: the records of `stat` and `status`.

The formats are those of proc_pid_stat(5) and proc_pid_status(5). Bytes that are not UTF-8 become
surrogates (``os.fsencode`` gives them back), because a process may call itself anything.
"""

from __future__ import annotations

import os
import re
import signal

import attrs

__all__ = ["ProcessStat", "ProcessStatus", "parse_stat", "parse_status"]

#: The task is a kernel thread (include/linux/sched.h).
_PF_KTHREAD = 0x00200000

_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")

_SIGKILL_BIT = 1 << signal.SIGKILL - 1

_ESCAPED = re.compile(rb"\\(n|\\|[0-7]{3})")


@attrs.frozen
class ProcessStat:
    """What `/proc/PID/stat` says; the fields of proc_pid_stat(5) that snaplib uses.

    Attributes:
        pid: Process (or thread) id in the namespace of the /proc that was read.
        comm: Name of the main thread, at most 15 bytes, as it is: it may hold anything but NUL.
        state: One letter: R running, S sleeping, D in an uninterruptible wait, T stopped,
            t stopped by a tracer, Z zombie, X dead, I idle kernel thread.
        ppid: Parent's pid, 0 when it is outside this /proc's namespace.
        process_group: Process group id.
        session: Session id.
        tty: Device number of the controlling terminal, 0 without one.
        flags: PF_* bits of include/linux/sched.h.
        minor_faults: Page faults that needed no disk.
        major_faults: Page faults that did.
        user_ticks: CPU time in user mode, in clock ticks (``os.sysconf("SC_CLK_TCK")`` a second).
        system_ticks: CPU time in the kernel, in clock ticks.
        nice: Nice value, -20 to 19.
        threads: Number of threads.
        start_ticks: When it started, in clock ticks since boot. With the pid it names one process
            for as long as the machine is up.
        vm_bytes: Size of the address space.
        rss_bytes: Resident memory, some 100 KiB a thread wrong: each CPU counts for itself.
    """

    pid: int
    comm: str
    state: str
    ppid: int
    process_group: int
    session: int
    tty: int
    flags: int
    minor_faults: int
    major_faults: int
    user_ticks: int
    system_ticks: int
    nice: int
    threads: int
    start_ticks: int
    vm_bytes: int
    rss_bytes: int

    @property
    def kernel_thread(self) -> bool:
        """Whether it is a thread of the kernel, without memory of its own."""
        return bool(self.flags & _PF_KTHREAD)

    @property
    def zombie(self) -> bool:
        """Whether it has ended. A zombie main thread may still have living threads beside it."""
        return self.state in "ZX"

    @property
    def stopped(self) -> bool:
        """Whether it is stopped by a signal or a tracer."""
        return self.state in "Tt"


@attrs.frozen
class ProcessStatus:
    """What `/proc/PID/status` says; the fields of proc_pid_status(5) that snaplib uses.

    Attributes:
        name: The same as `ProcessStat.comm`.
        state: The same as `ProcessStat.state`.
        pid: Process (or thread) id in the namespace of the /proc that was read.
        tgid: Pid of the process that a thread belongs to.
        ppid: Parent's pid, 0 when it is outside this /proc's namespace.
        tracer_pid: Pid of the tracer, 0 without one.
        uids: Real, effective, saved and file-system user id.
        gids: Real, effective, saved and file-system group id.
        groups: Supplementary group ids.
        ns_pids: Its pid in each PID namespace, from the one of this /proc to its own (the last).
        ns_tgids: The same for the process it belongs to.
        ns_process_groups: The same for its process group.
        ns_sessions: The same for its session.
        threads: Number of threads.
        vm_rss_bytes: Resident memory; 0 for zombies and kernel threads.
        vm_size_bytes: Size of the address space; 0 likewise.
        vm_swap_bytes: Anonymous memory in swap; 0 likewise.
        hugetlb_bytes: Memory in hugetlb pages; 0 likewise.
        effective_capabilities: Bits of linux/capability.h.
        no_new_privs: Whether exec can give it no new privileges.
        seccomp: 0 none, 1 strict, 2 filter.
        cpus_allowed: The CPUs it may run on.
        killed: Whether kill(2) has sent it SIGKILL, from that very moment until it is reaped: the signal stays pending
            for the process, whatever its threads take (kernel/signal.c, get_signal).
    """

    name: str
    state: str
    pid: int
    tgid: int
    ppid: int
    tracer_pid: int
    uids: tuple[int, int, int, int]
    gids: tuple[int, int, int, int]
    groups: tuple[int, ...]
    ns_pids: tuple[int, ...]
    ns_tgids: tuple[int, ...]
    ns_process_groups: tuple[int, ...]
    ns_sessions: tuple[int, ...]
    threads: int
    vm_rss_bytes: int
    vm_size_bytes: int
    vm_swap_bytes: int
    hugetlb_bytes: int
    effective_capabilities: int
    no_new_privs: bool
    seccomp: int
    cpus_allowed: frozenset[int]
    killed: bool = False


def parse_stat(content: bytes) -> ProcessStat:
    """Parse the content of a `stat` file.

    Raises:
        ValueError: It has not the form of proc_pid_stat(5).
    """
    # The name is not escaped and may hold ") R 1"; only digits follow it, so the last one closes.
    opening, closing = content.find(b"("), content.rfind(b")")
    if opening < 0 or closing < opening:
        raise ValueError(f"not a stat line: {content[:80]!r}")
    # `rest` starts with the 3rd field of proc_pid_stat(5): field N is rest[N - 3].
    rest = content[closing + 1 :].split()
    if len(rest) < 22:
        raise ValueError(f"not a stat line: {content[:80]!r}")
    return ProcessStat(
        pid=int(content[:opening]),
        comm=os.fsdecode(content[opening + 1 : closing]),
        state=rest[0].decode(),
        ppid=int(rest[1]),
        process_group=int(rest[2]),
        session=int(rest[3]),
        tty=int(rest[4]),
        flags=int(rest[6]),
        minor_faults=int(rest[7]),
        major_faults=int(rest[9]),
        user_ticks=int(rest[11]),
        system_ticks=int(rest[12]),
        nice=int(rest[16]),
        threads=int(rest[17]),
        start_ticks=int(rest[19]),
        vm_bytes=int(rest[20]),
        rss_bytes=int(rest[21]) * _PAGE_BYTES,
    )


def parse_status(content: bytes) -> ProcessStatus:
    """Parse the content of a `status` file.

    Lines that this kernel does not print come out as 0 or empty, except those that all print.

    Raises:
        ValueError: It has not the form of proc_pid_status(5).
    """
    fields: dict[bytes, bytes] = {}
    for line in content.split(b"\n"):
        key, separator, value = line.partition(b":\t")
        if separator:
            fields[key] = value
    try:
        pid = int(fields[b"Pid"])
        return ProcessStatus(
            name=os.fsdecode(_unescape(fields[b"Name"])),
            state=fields[b"State"][:1].decode(),
            pid=pid,
            tgid=int(fields[b"Tgid"]),
            ppid=int(fields[b"PPid"]),
            tracer_pid=int(fields[b"TracerPid"]),
            uids=_four(fields[b"Uid"]),
            gids=_four(fields[b"Gid"]),
            groups=_numbers(fields.get(b"Groups", b"")),
            # Kernels without PID namespaces print no NS lines: everyone is in the only one.
            ns_pids=_numbers(fields.get(b"NSpid", b"")) or (pid,),
            ns_tgids=_numbers(fields.get(b"NStgid", b"")) or (int(fields[b"Tgid"]),),
            ns_process_groups=_numbers(fields.get(b"NSpgid", b"")),
            ns_sessions=_numbers(fields.get(b"NSsid", b"")),
            threads=int(fields.get(b"Threads", b"1")),
            vm_rss_bytes=_kibibytes(fields.get(b"VmRSS")),
            vm_size_bytes=_kibibytes(fields.get(b"VmSize")),
            vm_swap_bytes=_kibibytes(fields.get(b"VmSwap")),
            hugetlb_bytes=_kibibytes(fields.get(b"HugetlbPages")),
            effective_capabilities=int(fields.get(b"CapEff", b"0"), 16),
            no_new_privs=fields.get(b"NoNewPrivs", b"0").strip() == b"1",
            seccomp=int(fields.get(b"Seccomp", b"0")),
            cpus_allowed=_cpu_list(fields.get(b"Cpus_allowed_list", b"")),
            killed=bool(int(fields.get(b"ShdPnd", b"0"), 16) & _SIGKILL_BIT),
        )
    except KeyError as error:
        raise ValueError(f"status has no line {error.args[0].decode()}") from None


def _unescape(escaped: bytes) -> bytes:
    """Undo what the kernel does to the name in `status` (seq_escape_str with "\\n\\\\")."""

    def plain(match: re.Match[bytes]) -> bytes:
        code = match[1]
        if code == b"n":
            return b"\n"
        return code if code == b"\\" else bytes([int(code, 8) & 0xFF])

    return _ESCAPED.sub(plain, escaped)


def _numbers(value: bytes) -> tuple[int, ...]:
    return tuple(map(int, value.split()))


def _four(value: bytes) -> tuple[int, int, int, int]:
    first, second, third, fourth = _numbers(value)
    return first, second, third, fourth


def _kibibytes(value: bytes | None) -> int:
    return 0 if value is None else int(value.split()[0]) * 1024


def _cpu_list(value: bytes) -> frozenset[int]:
    """Parse a list of CPUs such as ``0-3,8`` (cpuset(7), List format)."""
    cpus: set[int] = set()
    for part in value.strip().split(b","):
        if part:
            bounds = part.split(b"-")
            cpus.update(range(int(bounds[0]), int(bounds[-1]) + 1))
    return frozenset(cpus)
