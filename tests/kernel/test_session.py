"""A session from start to end: what runs, how it ends, who may die meanwhile."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from snaplib.errors import CommandNotExecutable, CommandNotFound, HostUnfit, KeyBusy, UsageError
from snaplib.kernel import ProcFs
from snaplib.kernel.syscalls import set_child_subreaper
from snaplib.session import ExitStatus, Session

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root"),
    pytest.mark.usefixtures("sessions_apart"),
]

_DEADLINE_S = 30.0
#: A prime number, so that a count that is right by chance is unlikely.
_KILLS = 23


def run(command, **options) -> ExitStatus:
    """Run a command in a session to its end."""
    options.setdefault("stdin", subprocess.DEVNULL)
    options.setdefault("stdout", subprocess.DEVNULL)
    options.setdefault("stderr", subprocess.DEVNULL)
    session = Session.start(command, **options)
    status = session.wait(_DEADLINE_S)
    session.cleanup()
    return status


def until(condition, what: str):
    """Poll for something that another process does; the deadline is only for a broken one."""
    give_up = time.monotonic() + _DEADLINE_S
    while not (found := condition()):
        assert time.monotonic() < give_up, f"never: {what}"
        time.sleep(0.005)
    return found


@pytest.mark.parametrize("code", [0, 1, 3, 255])
def test_exit_code_is_the_tasks_own(code):
    assert run(["sh", "-c", f"exit {code}"]) == ExitStatus(exit_code=code)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGSEGV, signal.SIGPIPE])
def test_signal_that_ended_the_task_is_told(number):
    assert run(["sh", "-c", f"kill -{int(number)} $$"]) == ExitStatus(signal=number)


def test_the_root_has_a_pid_that_leaves_room_for_criu():
    with Session.start(["sleep", "60"], stdout=subprocess.DEVNULL) as session:
        assert session.root_pid >= 300
        inside = Path(f"/proc/{session.root_host_pid}/status").read_text()
        assert f"NSpid:\t{session.root_host_pid}\t{session.root_pid}\n" in inside
        session.terminate()
        session.wait(_DEADLINE_S)


def test_the_task_sees_only_itself_and_its_init(tmp_path):
    out = tmp_path / "ps"
    assert run(["sh", "-c", "ls /proc"], stdout=out) == ExitStatus(exit_code=0)
    pids = [int(word) for word in out.read_text().split() if word.isdigit()]
    assert pids[:2] == [1, 300]
    assert len(pids) == 3  # and ls


def test_a_command_that_is_not_there_is_127():
    with pytest.raises(CommandNotFound, match="no-such-program"):
        run(["no-such-program"])


def test_a_command_that_cannot_be_executed_is_126(tmp_path):
    plain = tmp_path / "plain"
    plain.write_text("text\n")
    with pytest.raises(CommandNotExecutable, match="chmod"):
        run([str(plain)])
    with pytest.raises(CommandNotExecutable, match="is a directory"):
        run([str(tmp_path)])


def test_a_script_without_its_interpreter_is_126_and_leaves_nothing(tmp_path):
    script = tmp_path / "script"
    script.write_text("#!/no/such/interpreter\n")
    script.chmod(0o755)
    with pytest.raises(CommandNotExecutable, match="interpreter"):
        run([str(script)], name="gone")
    assert Session.find("gone") is None
    assert list((tmp_path / "run" / "sessions").iterdir()) == []


def test_a_cgroup_that_is_not_there_is_no_missing_command(tmp_path):
    with pytest.raises(HostUnfit, match="cgroup"):
        run(["true"], cgroups=[tmp_path / "missing"])


def test_a_relative_program_counts_from_the_tasks_folder(tmp_path):
    script = tmp_path / "here"
    script.write_text("#!/bin/sh\nexit 7\n")
    script.chmod(0o755)
    assert run(["./here"], cwd=tmp_path) == ExitStatus(exit_code=7)
    with pytest.raises(CommandNotFound):
        run(["./here"], cwd="/")


def test_a_folder_that_is_not_there():
    with pytest.raises(UsageError, match="not a folder"):
        run(["true"], cwd="/no/such/folder")


def test_arguments_environment_and_folder_arrive_as_they_are(tmp_path):
    odd = os.fsdecode(b"caf\xe9 \xff\n'\"$")
    script = "import os,sys; print([os.fsencode(a) for a in sys.argv[1:]], os.environb[b'ODD'], os.getcwd())"
    out = tmp_path / "out"
    environment = {**os.environ, "ODD": odd}
    run([sys.executable, "-c", script, odd, ""], env=environment, cwd=tmp_path, stdout=out)
    assert out.read_text() == f"{[os.fsencode(odd), b'']} {os.fsencode(odd)!r} {tmp_path}\n"


def test_the_task_gets_default_signals_and_no_stray_descriptors(tmp_path):
    out = tmp_path / "out"
    stray = os.open("/etc/passwd", os.O_RDONLY)
    os.set_inheritable(stray, True)
    try:
        run(["sh", "-c", "grep -E '^Sig(Blk|Ign)' /proc/self/status; ls /proc/self/fd"], stdout=out)
    finally:
        os.close(stray)
    lines = out.read_text().split("\n")
    # Signals 32 and 33 are libc's own: no program can change what it was started with.
    masks = [int(line.split()[1], 16) & ~(0b11 << 31) for line in lines[:2]]
    assert masks == [0, 0], lines[:2]
    assert lines[2:6] == ["0", "1", "2", "3"]  # 3 is ls looking at the folder


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGHUP])
def test_signals_are_forwarded_to_the_tasks_group(number, tmp_path):
    ready = tmp_path / "ready"
    script = f"trap 'exit 42' {int(number)}; echo > {ready}; while :; do sleep 0.01; done"
    session = Session.start(["sh", "-c", script], stdout=subprocess.DEVNULL)
    until(ready.exists, "the task is ready")
    session.signal(number)
    assert session.wait(_DEADLINE_S) == ExitStatus(exit_code=42)
    session.cleanup()


def test_orphans_are_reaped(tmp_path):
    ready = tmp_path / "ready"
    script = f"for i in $(seq {_KILLS}); do (true &) ; done; echo > {ready}; exec sleep 60"
    with Session.start(["sh", "-c", script], stdout=subprocess.DEVNULL) as session:
        until(ready.exists, "the orphans were made")
        children = Path(f"/proc/{session.host_pid}/task/{session.host_pid}/children")
        until(lambda: children.read_text().split() == [str(session.root_host_pid)], "reaped")
        session.terminate()
        assert session.wait(_DEADLINE_S) == ExitStatus(signal=signal.SIGKILL)


def test_what_the_root_leaves_behind_ends_with_it(tmp_path):
    pid_file = tmp_path / "pid"
    script = f"setsid sh -c 'echo $$ > {pid_file}; exec sleep 1000' & while [ ! -s {pid_file} ]; do sleep 0.01; done"
    with Session.start(["sh", "-c", script], stdout=subprocess.DEVNULL) as session:
        assert session.wait(_DEADLINE_S) == ExitStatus(exit_code=0)
        assert not session.alive


def test_a_name_is_taken_as_long_as_its_session_runs():
    with Session.start(["sleep", "60"], name="mine", stdout=subprocess.DEVNULL) as first:
        with pytest.raises(KeyBusy, match="mine"):
            Session.start(["true"], name="mine")
        first.terminate()
        first.wait(_DEADLINE_S)
    assert Session.find("mine") is None
    assert Session.last_status("mine") == ExitStatus(signal=signal.SIGKILL)
    assert run(["true"], name="mine") == ExitStatus(exit_code=0)


def test_wait_gives_up_in_time():
    with Session.start(["sleep", "60"], stdout=subprocess.DEVNULL) as session:
        with pytest.raises(TimeoutError):
            session.wait(0.01)
        session.terminate()
        session.wait(_DEADLINE_S)


def test_an_init_that_was_killed_is_told():
    with Session.start(["sleep", "60"], stdout=subprocess.DEVNULL) as session:
        os.kill(session.host_pid, signal.SIGKILL)
        assert session.wait(_DEADLINE_S) == ExitStatus(signal=signal.SIGKILL)


def test_somebody_else_finds_waits_and_cleans_up():
    started = Session.start(
        ["sh", "-c", "read x; exit 5"], name="found", key="k", stdin=(r := os.pipe())[0]
    )
    started.close()
    found = Session.find("found")
    assert found is not None
    assert (found.key, found.command) == ("k", ("sh", "-c", "read x; exit 5"))
    os.write(r[1], b"go\n")
    assert found.wait(_DEADLINE_S) == ExitStatus(exit_code=5)
    found.cleanup()
    assert Session.last_status("found") is None
    for fd in r:
        os.close(fd)


_STARTER = """
    import subprocess, sys
    from snaplib.session import Session
    name, mark, go = sys.argv[1:]
    Session.start(["sh", "-c", f"echo started > {mark}; read x < {go}; exit 9"],
                  name=name, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL).wait()
"""


class Launch:
    """A process that starts a session, whose task leaves a mark and waits for a word."""

    def __init__(self, folder: Path, name: str) -> None:
        self.name = name
        self.mark = folder / f"{name}.mark"
        self._go = folder / f"{name}.go"
        os.mkfifo(self._go)
        self._starter = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(_STARTER), name, str(self.mark), str(self._go)],
            cwd=Path(__file__).parents[2],
        )

    def kill_starter(self) -> None:
        self._starter.kill()
        self._starter.wait()

    def finish(self) -> None:
        """Find the session, as somebody else would, and see its task through."""
        with Session.find(self.name) as found:
            until(self.mark.exists, "an adoptable session runs its task")
            with self._go.open("w") as fifo:
                fifo.write("x\n")
            assert found.wait(_DEADLINE_S) == ExitStatus(exit_code=9)
            found.cleanup()


def inits_of(launches: list[Launch]) -> set[int]:
    """Return the inits of those sessions that can be found."""
    pids = set()
    for launch in launches:
        if found := Session.find(launch.name):
            with found:
                pids.add(found.init_pid)
    return pids


@pytest.fixture
def orphans():
    """Have what loses its parent become ours, and return a function that tells which of it lives."""
    procfs, own = ProcFs(), os.getpid()
    before = set(procfs.children(own))

    def living() -> set[int]:
        found = set(procfs.children(own)) - before
        return {pid for pid in found if os.waitpid(pid, os.WNOHANG) == (0, 0)}

    set_child_subreaper(True)
    yield living
    set_child_subreaper(False)
    until(lambda: not living(), "all of them have ended")


@pytest.mark.slow
def test_killing_the_starter_leaves_nothing_or_a_whole_session(tmp_path, orphans):
    # How long a start takes here; the first finds nothing compiled or cached.
    for name in ("cold", "warm"):
        begin = time.monotonic()
        launch = Launch(tmp_path, name)
        until(launch.mark.exists, "the task runs")
        launch_s = time.monotonic() - begin
        launch.finish()
        launch.kill_starter()
    chance = random.Random(_KILLS)
    moments_s = [launch_s * chance.uniform(0.0, 0.6) for _ in range(_KILLS // 4)]
    # The last tenth of a second is where everything happens.
    while len(moments_s) < _KILLS:
        moments_s.append(max(0.0, launch_s + chance.uniform(-0.1, 0.05)))
    launches = []
    for number, moment_s in enumerate(moments_s):
        launch = Launch(tmp_path, f"victim{number}")
        time.sleep(moment_s)
        launch.kill_starter()
        launches.append(launch)
    last = Launch(tmp_path, "last")
    until(last.mark.exists, "the task runs")
    last.kill_starter()
    launches.append(last)
    until(lambda: orphans() <= inits_of(launches), "no launcher is at work any more")
    outcomes = []
    for launch in launches:
        found = Session.find(launch.name)
        if found is None:
            assert not launch.mark.exists()
        else:
            found.close()
            launch.finish()
        outcomes.append(found is not None)
    assert outcomes[-1]


def test_a_task_that_ends_at_once_is_a_session_like_any_other():
    for _ in range(_KILLS):
        with Session.start(["true"], stdout=subprocess.DEVNULL) as session:
            assert session.pidfd >= 0
            assert session.wait(_DEADLINE_S) == ExitStatus(exit_code=0)


def test_without_privilege_it_is_said(tmp_path):
    (tmp_path / "run").mkdir()
    os.chown(tmp_path / "run", 65534, 65534)
    for folder in [*tmp_path.parents, tmp_path]:
        if folder.is_relative_to("/tmp") and folder != Path("/tmp"):
            folder.chmod(0o755)
    code = """
from snaplib.errors import RootRequired
from snaplib.session import Session
try:
    Session.start(["true"])
except RootRequired as error:
    print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=Path(__file__).parents[2],
        user=65534,
        group=65534,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.startswith("no permission to give the task a PID namespace"), done.stderr
    assert not list((tmp_path / "run" / "sessions").iterdir())


def test_folders_that_killed_starts_left_are_swept(tmp_path):
    sessions = tmp_path / "run" / "sessions"
    sessions.mkdir(parents=True)
    (sessions.parent).chmod(0o700)
    for name in (".gone.999999999-1", f".reused.{os.getpid()}-1", ".removed.ended.999999999"):
        (sessions / name).mkdir()
    own = (
        sessions
        / f".own.{os.getpid()}-{Path('/proc/self/stat').read_text().rpartition(')')[2].split()[19]}"
    )
    own.mkdir()
    assert run(["true"]) == ExitStatus(exit_code=0)
    assert list(sessions.iterdir()) == [own]
