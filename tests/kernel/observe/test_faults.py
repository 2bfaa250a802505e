"""What can go wrong around a watch."""

from __future__ import annotations

import contextlib
import errno
import functools
import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
from pathlib import Path

import attrs
import pytest

from snaplib.errors import TaskEnded
from snaplib.kernel import ProcFs
from snaplib.kernel.bpf import BytecodeCache, abi, observer
from snaplib.kernel.syscalls import syscall
from snaplib.observe import Trace, Watch

IDLE = "print('ready'); input()"

FORKER = """
import os, sys
print('ready')
for line in sys.stdin:
    for _ in range(int(line)):
        pid = os.fork() or os._exit(0)
        os.waitpid(pid, 0)
    print('done')
"""

BROOD = """
import os, sys, time
print('ready')
for line in sys.stdin:
    for _ in range(int(line)):
        os.fork() or time.sleep(60)
    print('done')
"""


@pytest.fixture(autouse=True)
def _needs(require) -> None:
    require("bpf_program", "bpf_raw_tracepoint", "btf")


class SmallMaps(BytecodeCache):
    """The same programs with less room in a map."""

    room: dict[str, int] = {}  # noqa: RUF012  set by each test

    def get(self, names):
        def smaller(one):
            return attrs.evolve(one, entries=self.room.get(one.name, one.entries))

        return {
            name: attrs.evolve(code, maps=tuple(map(smaller, code.maps)))
            for name, code in super().get(names).items()
        }


def test_a_full_ring_is_told_and_loses_no_count(start, monkeypatch) -> None:
    monkeypatch.setattr(observer, "BytecodeCache", SmallMaps)
    monkeypatch.setattr(SmallMaps, "room", {"events": 4096})
    workload = start(FORKER)
    with Watch(workload.task, 600.0, arm="none", source="ebpf") as watch:
        workload.do("230")
        profile = watch._profiler.take()
        assert profile.losses.events > 0
        assert profile.counts.forks == profile.counts.exits == 230
        assert len(profile.events) + profile.losses.events == 2 * 230
        workload.do("23")
        after = watch._profiler.take()
    assert after.losses == profile.losses, "there is room again"
    assert len(after.events) == 46


def test_a_full_map_is_told(start, monkeypatch) -> None:
    monkeypatch.setattr(observer, "BytecodeCache", SmallMaps)
    monkeypatch.setattr(SmallMaps, "room", {"members": 8, "counts": 8})
    workload = start.command(sys.executable, "-uc", BROOD, group=True)
    with Watch(workload.task, 600.0, arm="none", source="ebpf") as watch:
        workload.do("23")
        profile = watch._profiler.take()
    assert profile.losses.members >= 23 - 8
    assert 1 <= len(profile.members) <= 8


CONNECTOR = """
import socket, sys
print('ready')
server = socket.create_server(('127.0.0.1', 0), backlog=64)
kept = []
for line in sys.stdin:
    for _ in range(int(line)):
        client = socket.create_connection(server.getsockname())
        kept += [client, server.accept()[0]]
    print('done')
"""


def test_a_full_map_of_sockets_is_told(start, monkeypatch) -> None:
    monkeypatch.setattr(observer, "BytecodeCache", SmallMaps)
    monkeypatch.setattr(SmallMaps, "room", {"sockets": 8})
    workload = start(CONNECTOR)
    with Watch(workload.task, 600.0, arm="none", source="ebpf") as watch:
        workload.do("23")
        profile = watch._profiler.take()
    assert profile.losses.sockets > 0
    assert len(profile.sockets) == 2 * 23 + 1, "the list needs no map"


def test_a_kernel_that_iterates_over_all_processes_only(start, monkeypatch) -> None:
    """As before Linux 6.1: what is behind the first word of the argument is not known there."""
    open_iterator = abi.open_iterator

    def older(descriptor, *, pid=0):
        if pid:
            raise OSError(errno.E2BIG, "bpf: Argument list too long")
        return open_iterator(descriptor)

    monkeypatch.setattr(abi, "open_iterator", older)
    workload = start(IDLE)
    with Watch(workload.task, 600.0, arm="none", source="ebpf") as watch:
        profile = watch._profiler.take()
    told = [(one.pid, one.fd, one.path) for one in profile.descriptors]
    expected = ProcFs().descriptors(workload.pid)
    assert told == [(workload.pid, one.fd, one.target) for one in expected]


def with_pid(pid: int) -> subprocess.Popen[bytes]:
    """Start a stranger that has a pid which somebody had before."""
    for _ in range(200):
        with contextlib.suppress(OSError):
            Path("/proc/sys/kernel/ns_last_pid").write_text(str(pid - 1))
        child = subprocess.Popen(["sleep", "60"])
        if child.pid == pid:
            return child
        child.kill()
        child.wait()
    pytest.skip("this host gave the pid to nobody")


@pytest.mark.parametrize("source", ["ebpf", "proc"])
def test_a_stranger_with_the_pid_of_the_root_is_not_watched(start, source) -> None:
    workload = start(IDLE)
    with Watch(workload.task, 600.0, arm="none", source=source) as watch:
        workload.do()
        workload.process.wait()
        stranger = with_pid(workload.pid)
        try:
            assert watch._profiler.take() is None
            with pytest.raises(TaskEnded):
                Watch(workload.task, 600.0, arm="none", source=source).start()
        finally:
            stranger.kill()
            stranger.wait()


def program_exists(program_id: int) -> bool:
    """Ask the kernel for a program by its id: BPF_PROG_GET_FD_BY_ID (linux/bpf.h)."""
    try:
        os.close(syscall("bpf", 13, struct.pack("<III", program_id, 0, 0).ljust(128, b"\0"), 128))
    except FileNotFoundError:
        return False
    return True


def test_nothing_stays_of_a_watcher_that_is_killed(start, eventually) -> None:
    workload = start(IDLE)
    watcher = subprocess.Popen(
        [sys.executable, "-m", "snaplib", "watch", str(workload.pid), "--json", "--arm", "all"],
        stdout=subprocess.PIPE,
    )
    try:
        assert json.loads(watcher.stdout.readline())["dirty"]["basis"] in ("armed", "faults")
        programs = set()
        for file in Path(f"/proc/{watcher.pid}/fdinfo").iterdir():
            for line in file.read_text().splitlines():
                if line.startswith("prog_id:"):
                    programs.add(int(line.split()[1]))
        assert len(programs) >= 9
        assert all(map(program_exists, programs))
    finally:
        watcher.kill()
        watcher.wait()
        watcher.stdout.close()
    eventually(lambda: not any(map(program_exists, programs)), "the programs go")
    assert "uw" not in Path(f"/proc/{workload.pid}/smaps").read_text().split(), "memory is free"
    workload.do()
    assert workload.process.wait(30) == 0


def test_a_kernel_without_btf(start, monkeypatch, tmp_path) -> None:
    without = functools.partial(BytecodeCache, btf=tmp_path / "none")
    monkeypatch.setattr(observer, "BytecodeCache", without)
    with Watch(start(IDLE).task, 600.0, arm="none") as watch:
        profile = watch.profile()
    assert profile.source == "proc"
    assert any("CONFIG_DEBUG_INFO_BTF" in note for note in profile.notes)


def watch_once(pid: int, *before: str, **options: object) -> dict[str, object]:
    result = subprocess.run(
        [
            *(*before, sys.executable, "-m", "snaplib", "watch", str(pid)),
            *("--json", "--duration", "0.1", "--interval", "0.05", "--arm", "none"),
        ],
        capture_output=True,
        text=True,
        check=False,
        **options,
    )
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout.splitlines()[0])


def test_a_host_without_tracefs(start) -> None:
    """Raw tracepoints are opened by name, not through a file system."""
    workload = start(IDLE)
    unmounting = 'umount -l /sys/kernel/tracing; umount -l /sys/kernel/debug 2>/dev/null; exec "$@"'
    told = watch_once(workload.pid, "unshare", "--mount", "sh", "-c", unmounting, "sh")
    assert told["source"] == "ebpf"


@pytest.fixture
def nobodys():
    """A task of a user who is nobody, and that user's environment."""
    # Not in tmp_path: nobody may not look into its parents.
    folder = tempfile.mkdtemp()
    os.chown(folder, 65534, 65534)
    task = subprocess.Popen(["sleep", "60"], user=65534, group=65534, extra_groups=[])
    yield task.pid, {**os.environ, "SNAPLIB_CACHE_DIR": folder, "HOME": folder}
    task.kill()
    task.wait()
    shutil.rmtree(folder)


SETPRIV = ("setpriv", "--reuid", "65534", "--regid", "65534", "--clear-groups")


def test_two_capabilities_are_enough(nobodys) -> None:
    pid, environment = nobodys
    capabilities = ("--inh-caps", "+bpf,+perfmon", "--ambient-caps", "+bpf,+perfmon")
    told = watch_once(pid, *SETPRIV, *capabilities, env=environment)
    assert told["source"] == "ebpf", told["notes"]
    assert told["descriptors"]["total"] >= 3
    assert told["memory"]["anon_bytes"] > 0


def test_without_capabilities_the_same_records_come_from_proc(nobodys) -> None:
    pid, environment = nobodys
    told = watch_once(pid, *SETPRIV, env=environment)
    assert told["source"] == "proc"
    assert any("CAP_BPF" in note or "bcc" in note for note in told["notes"])
    assert told["descriptors"]["total"] >= 3


def test_the_command_ends_with_the_task_and_records(start, tmp_path) -> None:
    workload = start(IDLE)
    path = tmp_path / "a.trace"
    command = [sys.executable, "-m", "snaplib", "watch", str(workload.pid), "--interval", "0.05"]
    watcher = subprocess.Popen(
        [*command, "--record", path], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    first = watcher.stdout.readline()
    assert "resident" in first
    workload.do()
    out, err = watcher.communicate(timeout=60)
    assert watcher.returncode == 0
    assert f"the task {workload.pid} has ended" in err
    recorded = list(Trace(path))
    assert len(recorded) == 1 + len(out.splitlines())
    assert {one.pid for one in recorded} == {workload.pid}


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_command_ends_on_a_signal(start, number) -> None:
    command = [sys.executable, "-m", "snaplib", "watch", str(start(IDLE).pid)]
    watcher = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    watcher.stdout.readline()
    watcher.send_signal(number)
    _, err = watcher.communicate(timeout=60)
    assert watcher.returncode == 0, err


def test_the_live_view_on_a_terminal(start) -> None:
    master, slave = os.openpty()
    command = [sys.executable, "-m", "snaplib", "watch", str(start(IDLE).pid)]
    watcher = subprocess.Popen(
        [*command, "--duration", "0.3", "--interval", "0.1"], stdout=slave, stderr=slave
    )
    os.close(slave)
    shown = b""
    with contextlib.suppress(OSError):  # EIO: the other side is closed
        while part := os.read(master, 65536):
            shown += part
    os.close(master)
    assert watcher.wait(60) == 0
    text = shown.decode()
    assert "snaplib watch" in text
    assert "descriptors" in text
    assert "in a dump" in text
