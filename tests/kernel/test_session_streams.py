"""A session's standard streams: every byte once, in order, whatever is at the other end."""

from __future__ import annotations

import hashlib
import os
import pty
import random
import select
import signal
import socket
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path

import pytest

from snaplib.errors import RestoreFailed
from snaplib.kernel import TaskCgroup
from snaplib.session import ExitStatus, Session

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces need root"),
    pytest.mark.usefixtures("sessions_apart"),
]

_DEADLINE_S = 60.0
#: More than all pipes on the way hold together, and no multiple of a page.
_MUCH_BYTES = 7_000_003


@pytest.fixture
def noise(tmp_path) -> Path:
    path = tmp_path / "noise"
    path.write_bytes(random.Random(23).randbytes(_MUCH_BYTES))
    return path


def finish(session: Session) -> ExitStatus:
    status = session.wait(_DEADLINE_S)
    session.cleanup()
    return status


def read_all(fd: int, *, chunk_bytes: int = 1 << 16, pause_s: float = 0.0) -> bytes:
    parts = []
    while part := os.read(fd, chunk_bytes):
        parts.append(part)
        time.sleep(pause_s)
    os.close(fd)
    return b"".join(parts)


def until(condition, what: str):
    give_up = time.monotonic() + _DEADLINE_S
    while not (found := condition()):
        assert time.monotonic() < give_up, f"never: {what}"
        time.sleep(0.005)
    return found


def test_output_to_a_pipe_is_exact(noise):
    reading, writing = os.pipe()
    session = Session.start(["cat", str(noise)], stdout=writing)
    os.close(writing)
    assert read_all(reading) == noise.read_bytes()
    assert finish(session) == ExitStatus(exit_code=0)


def test_output_to_a_slow_reader_is_exact(noise):
    reading, writing = os.pipe()
    session = Session.start(["cat", str(noise)], stdout=writing)
    os.close(writing)
    assert read_all(reading, chunk_bytes=99_991, pause_s=0.001) == noise.read_bytes()
    assert finish(session) == ExitStatus(exit_code=0)


def test_output_to_a_socket_is_exact(noise):
    ours, theirs = socket.socketpair()
    with ours:
        session = Session.start(["cat", str(noise)], stdout=theirs)
        theirs.close()
        received = hashlib.sha256()
        while part := ours.recv(1 << 16):
            received.update(part)
    assert received.digest() == hashlib.sha256(noise.read_bytes()).digest()
    assert finish(session) == ExitStatus(exit_code=0)


@pytest.mark.parametrize("mode", ["wb", "ab"])
def test_output_to_an_open_file_is_exact_and_begins_at_its_position(noise, tmp_path, mode):
    out = tmp_path / "out"
    with out.open(mode) as file:
        file.write(b"header\n")
        file.flush()
        session = Session.start(["cat", str(noise)], stdout=file)
        assert finish(session) == ExitStatus(exit_code=0)
        if mode == "wb":
            # The position is shared, as with any child.
            os.write(file.fileno(), b"footer\n")
            assert out.read_bytes() == b"header\n" + noise.read_bytes() + b"footer\n"
        else:
            assert out.read_bytes() == b"header\n" + noise.read_bytes()


@pytest.mark.parametrize("append", [False, True])
def test_a_path_is_the_tasks_own_file(tmp_path, append):
    out = tmp_path / "out"
    out.write_text("before\n")
    script = "readlink /proc/self/fd/1"
    assert finish(Session.start(["sh", "-c", script], stdout=out, append=append)).exit_code == 0
    assert out.read_text() == ("before\n" if append else "") + f"{out}\n"


@pytest.mark.parametrize("kind", ["pipe", "file", "append"])
def test_stdout_and_stderr_in_one_place_keep_their_order(tmp_path, kind):
    out = tmp_path / "out"
    if kind == "pipe":
        reading, writing = os.pipe()
    else:
        flags = os.O_WRONLY | os.O_CREAT | (os.O_APPEND if kind == "append" else 0)
        writing = os.open(out, flags)
    script = "for i in $(seq 500); do echo out $i; echo err $i >&2; done"
    session = Session.start(["sh", "-c", script], stdout=writing, stderr=subprocess.STDOUT)
    os.close(writing)
    expected = "".join(f"out {i}\nerr {i}\n" for i in range(1, 501))
    got = read_all(reading).decode() if kind == "pipe" else None
    assert finish(session) == ExitStatus(exit_code=0)
    assert (out.read_text() if got is None else got) == expected


def test_a_reader_that_goes_away_is_a_broken_pipe_for_the_task():
    reading, writing = os.pipe()
    session = Session.start(["yes"], stdout=writing)
    os.close(writing)
    assert os.read(reading, 4) == b"y\ny\n"
    os.close(reading)
    assert finish(session) == ExitStatus(signal=signal.SIGPIPE)


def test_a_reader_that_goes_away_while_nothing_is_written(tmp_path):
    go = tmp_path / "go"
    reading, writing = os.pipe()
    script = f"while [ ! -e {go} ]; do sleep 0.01; done; echo late; exit 1"
    session = Session.start(["sh", "-c", f"trap '' PIPE; {script}"], stdout=writing)
    os.close(writing)
    os.close(reading)
    until(lambda: session.streams().streams[1].ended, "the end was noticed")
    go.touch()
    assert finish(session) == ExitStatus(exit_code=1)


def test_the_reader_sees_the_end_when_the_task_closes_its_output(tmp_path):
    reading, writing = os.pipe()
    session = Session.start(["sh", "-c", "echo all; exec >&-; exec sleep 60"], stdout=writing)
    os.close(writing)
    assert read_all(reading) == b"all\n"
    assert session.alive
    session.terminate()
    finish(session)


@pytest.mark.parametrize("kind", ["pipe", "file", "path"])
def test_input_is_exact(noise, tmp_path, kind):
    out = tmp_path / "out"
    feeder = None
    if kind == "path":
        session = Session.start(["cat"], stdin=noise, stdout=out)
    elif kind == "file":
        with noise.open("rb") as file:
            file.seek(1000)
            session = Session.start(["cat"], stdin=file, stdout=out)
    else:
        reading, writing = os.pipe()
        session = Session.start(["cat"], stdin=reading, stdout=out)
        os.close(reading)

        def feed() -> None:
            with os.fdopen(writing, "wb") as file:
                file.write(noise.read_bytes())

        feeder = threading.Thread(target=feed)
        feeder.start()
    assert finish(session) == ExitStatus(exit_code=0)
    if feeder is not None:
        feeder.join()
    assert out.read_bytes() == noise.read_bytes()[1000 if kind == "file" else 0 :]


def test_a_task_that_does_not_read_closes_the_way_to_its_feeder(tmp_path):
    reading, writing = os.pipe()
    session = Session.start(
        ["sh", "-c", "exec <&-; exec sleep 60"], stdin=reading, stdout=tmp_path / "out"
    )
    os.close(reading)
    poll = select.poll()
    poll.register(writing, 0)
    assert poll.poll(_DEADLINE_S * 1000)[0][1] & select.POLLERR
    os.close(writing)
    session.terminate()
    finish(session)


def test_a_deleted_input_file_is_relayed(noise, tmp_path):
    out = tmp_path / "out"
    with noise.open("rb") as file:
        content = noise.read_bytes()
        noise.unlink()
        session = Session.start(["cat"], stdin=file, stdout=out)
        assert finish(session) == ExitStatus(exit_code=0)
    assert out.read_bytes() == content


class Screen:
    """An outer terminal: what is typed into it and what it shows."""

    def __init__(self) -> None:
        self.master, self.slave = pty.openpty()
        termios.tcsetwinsize(self.slave, (23, 71))
        self.shown = b""

    def type(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def expect(self, text: bytes) -> None:
        give_up = time.monotonic() + _DEADLINE_S
        while text not in self.shown:
            left = give_up - time.monotonic()
            ready, _, _ = select.select([self.master], [], [], max(0, left))
            assert ready, f"never shown: {text!r}; shown: {self.shown!r}"
            self.shown += os.read(self.master, 1 << 16)

    def close(self) -> None:
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def screen():
    found = Screen()
    yield found
    found.close()


def on(screen: Screen) -> dict[str, int]:
    fd = screen.slave
    return {"stdin": fd, "stdout": fd, "stderr": fd, "interactive": True}


def test_a_terminal_is_a_terminal_for_the_task(screen):
    session = Session.start(["sh", "-c", "tty; stty size; ps -o tty= -p $$"], **on(screen))
    with session.raw_terminal():
        screen.expect(b"23 71\r\n")
        assert b"/dev/pts/" in screen.shown
        assert screen.shown.split(b"\r\n")[0] != os.ttyname(screen.slave).encode()
        assert finish(session) == ExitStatus(exit_code=0)


def test_keys_reach_the_task_once_and_are_echoed_once(screen):
    before = termios.tcgetattr(screen.slave)
    session = Session.start(["sh", "-c", "echo ready; read line; echo got $line"], **on(screen))
    with session.raw_terminal():
        screen.expect(b"ready\r\n")
        screen.type(b"hellp\x7fo\r")
        screen.expect(b"got hello\r\n")
        assert finish(session) == ExitStatus(exit_code=0)
    assert screen.shown.count(b"hellp") == 1
    assert termios.tcgetattr(screen.slave) == before


def test_ctrl_c_interrupts_the_foreground_of_the_task(screen):
    session = Session.start(["sh", "-c", "echo ready; exec sleep 60"], **on(screen))
    with session.raw_terminal():
        screen.expect(b"ready\r\n")
        screen.type(b"\x03")
        assert finish(session) == ExitStatus(signal=signal.SIGINT)


def test_much_output_to_a_terminal_is_exact(screen, tmp_path):
    lines = "".join(f"{number} {'x' * 60}\n" for number in range(5000))
    text = tmp_path / "text"
    text.write_text(lines)
    session = Session.start(["sh", "-c", f"cat {text}; echo the-end"], **on(screen))
    with session.raw_terminal():
        screen.expect(b"the-end\r\n")
        assert finish(session) == ExitStatus(exit_code=0)
    assert screen.shown.decode() == (lines + "the-end\n").replace("\n", "\r\n")


def test_a_new_window_size_reaches_the_task(screen):
    script = "trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.01; done"
    session = Session.start(["sh", "-c", script], **on(screen))
    with session.raw_terminal() as terminal:
        screen.expect(b"ready")
        termios.tcsetwinsize(screen.slave, (24, 81))
        terminal.refresh()
        screen.expect(b"24 81")
        finish(session)


def test_only_input_is_a_terminal(screen):
    reading, writing = os.pipe()
    session = Session.start(
        ["sh", "-c", "tty; read x; echo $x"], stdin=screen.slave, stdout=writing, stderr=writing
    )
    os.close(writing)
    with session.raw_terminal():
        screen.type(b"typed\r")
        screen.expect(b"typed\r\n")
        assert finish(session) == ExitStatus(exit_code=0)
    first, second = read_all(reading).decode().splitlines()
    assert (first.startswith("/dev/pts/"), second) == (True, "typed")


def stopped_task(script: str, ready: Path, **streams) -> Session:
    """Start a task, wait until it says it is ready, and stop all of it."""
    session = Session.start([sys.executable, "-c", script, str(ready)], **streams)
    until(ready.exists, "the task is ready")
    os.kill(session.root_host_pid, signal.SIGSTOP)
    state = Path(f"/proc/{session.root_host_pid}/stat")
    until(lambda: state.read_text().rpartition(")")[2].split()[0] == "T", "it stopped")
    return session


_WRITER = """
import os, sys, pathlib, fcntl, time
fcntl.fcntl(1, fcntl.F_SETFL, os.O_NONBLOCK)
data, sent, refused = bytes(range(251)) * 30000, 0, 0
while sent < len(data) and refused < 10:
    try:
        sent += os.write(1, data[sent:sent + 9973])
        refused = 0
    except BlockingIOError:
        refused += 1
        time.sleep(0.03)
pathlib.Path(sys.argv[1] + ".new").write_text(str(sent))
os.rename(sys.argv[1] + ".new", sys.argv[1])
fcntl.fcntl(1, fcntl.F_SETFL, 0)
time.sleep(0.1)
os.write(1, b"THE END")
"""


def test_a_drain_gives_what_the_reader_does_not_take_and_release_loses_nothing(tmp_path):
    reading, writing = os.pipe()
    ready = tmp_path / "ready"
    session = stopped_task(_WRITER, ready, stdout=writing)
    os.close(writing)
    session.hold(sends_continue=True)
    backlog, record = session.drain(0.05)
    sent = int(ready.read_text())
    delivered = record.streams[1].outer.delivered_bytes
    assert delivered + len(backlog.outputs[1]) == sent
    assert delivered < sent
    expected = (bytes(range(251)) * 30000)[:sent]
    assert backlog.outputs[1] == expected[delivered:]
    session.release()
    os.kill(session.root_host_pid, signal.SIGCONT)
    assert read_all(reading) == expected + b"THE END"
    assert finish(session) == ExitStatus(exit_code=0)


def test_a_drain_with_a_reader_leaves_nothing(tmp_path):
    ready = tmp_path / "ready"
    out = (tmp_path / "out").open("wb")
    with out:
        session = stopped_task(_WRITER, ready, stdout=out)
    session.hold()
    backlog, record = session.drain(_DEADLINE_S)
    assert backlog.size_bytes == 0
    sent = int(ready.read_text())
    assert (tmp_path / "out").stat().st_size == sent
    (source,) = record.capture_sources()
    assert (source.stream, source.offset_bytes, source.length_bytes) == (1, 0, sent)
    session.saved("snapshot-1")
    assert finish(session) == ExitStatus(saved="snapshot-1")
    assert (tmp_path / "out").stat().st_size == sent


_READER = """
import os, sys, pathlib, time
os.read(0, 10)
pathlib.Path(sys.argv[1]).touch()
time.sleep(0.2)
total = b""
while part := os.read(0, 65536):
    total += part
os.write(1, total)
"""


def test_a_drain_gives_what_the_task_has_not_read_and_leaves_it_there(tmp_path):
    reading, writing = os.pipe()
    out = tmp_path / "out"
    os.write(writing, b"0123456789" + b"abcdefg")
    session = stopped_task(_READER, tmp_path / "ready", stdin=reading, stdout=out)
    os.close(reading)
    session.hold()
    backlog, _ = session.drain(1.0)
    assert backlog.inputs == {0: b"abcdefg"}
    assert session.drain(1.0)[0] == backlog
    session.release()
    os.kill(session.root_host_pid, signal.SIGCONT)
    os.write(writing, b"hij")
    os.close(writing)
    assert finish(session) == ExitStatus(exit_code=0)
    assert out.read_bytes() == b"abcdefghij"


def test_a_drain_gives_what_was_typed_and_leaves_it_there(screen, tmp_path):
    ready = tmp_path / "ready"
    session = stopped_task(_READER.replace("os.read(0, 10)", "pass"), ready, **on(screen))
    with session.raw_terminal():
        screen.type(b"a line\rhalf")
        screen.expect(b"a line\r\nhalf")
        session.hold()
        backlog, _ = session.drain(1.0)
        assert backlog.inputs == {0: b"a line\nhalf"}
        session.release()
        os.kill(session.root_host_pid, signal.SIGCONT)
        screen.type(b"\x7f\x7fve\r\x04")
        screen.expect(b"a line\r\nhave\r\n")
        assert finish(session) == ExitStatus(exit_code=0)


def test_a_maker_of_a_dump_that_dies_lets_the_task_go_on(tmp_path):
    out = tmp_path / "out"
    ready = tmp_path / "ready"
    with out.open("wb") as file:
        session = stopped_task(_WRITER, ready, stdout=file)
    other = Session.find(session.name)
    other.hold(sends_continue=True)
    other.drain(1.0)
    other.close()
    assert finish(session) == ExitStatus(exit_code=0)
    assert out.read_bytes() == (bytes(range(251)) * 30000)[: int(ready.read_text())] + b"THE END"


def test_a_kill_while_a_dump_is_made_is_decided_by_the_release():
    session = Session.start(["sleep", "60"], stdout=subprocess.DEVNULL)
    session.hold()
    os.kill(session.root_host_pid, signal.SIGKILL)
    with pytest.raises(TimeoutError):
        session.wait(0.1)
    session.release()
    assert finish(session) == ExitStatus(signal=signal.SIGKILL)


def test_a_saved_task_that_takes_its_time_to_die_is_saved():
    """What kills it says so before its end is seen: large tasks with many threads die slowly."""
    session = Session.start(["sleep", "60"], stdout=subprocess.DEVNULL)
    session.hold()
    session.saved("snapshot", end=False)
    session.release(ended=True)
    assert finish(session) == ExitStatus(saved="snapshot")


def test_a_saved_task_that_goes_on_after_all_is_not_saved():
    session = Session.start(["sleep", "60"], stdout=subprocess.DEVNULL)
    session.hold()
    session.saved("snapshot", end=False)
    session.release()
    os.kill(session.root_host_pid, signal.SIGTERM)
    assert finish(session) == ExitStatus(signal=signal.SIGTERM)


def test_streams_of_a_session_that_was_found_go_elsewhere(tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    go = tmp_path / "go"
    os.mkfifo(go)
    with first.open("wb") as file:
        session = Session.start(["sh", "-c", f"echo one; read x < {go}; echo two"], stdout=file)
    until(first.read_bytes, "the first line")
    session.close()
    found = Session.find(session.name)
    with second.open("wb") as file:
        found.take_over(stdout=file)
    go.write_text("x\n")
    assert finish(found) == ExitStatus(exit_code=0)
    assert (first.read_text(), second.read_text()) == ("one\n", "two\n")


def test_the_same_file_goes_on_behind_what_is_there(tmp_path):
    out, go = tmp_path / "out", tmp_path / "go"
    os.mkfifo(go)
    with out.open("wb") as file:
        file.write(b"header\n")
        file.flush()
        session = Session.start(["sh", "-c", f"echo one; read x < {go}; echo two"], stdout=file)
    until(lambda: out.read_bytes() == b"header\none\n", "the first line")
    with out.open("r+b") as file:
        session.take_over(stdout=file)
    outer = session.streams().streams[1].outer
    assert (outer.start_bytes, outer.delivered_bytes) == (7, 4)
    go.write_text("x\n")
    assert finish(session) == ExitStatus(exit_code=0)
    assert out.read_text() == "header\none\ntwo\n"


def test_a_file_that_was_emptied_under_the_task_is_told(tmp_path):
    out = tmp_path / "out"
    with out.open("wb") as file:
        session = Session.start(["sh", "-c", "echo one; exec sleep 60"], stdout=file)
    until(out.read_bytes, "the first line")
    with out.open("wb") as file, pytest.raises(RestoreFailed, match=">>"):
        session.take_over(stdout=file)
    session.terminate()
    finish(session)


def test_a_small_file_that_was_emptied_and_has_grown_again_is_told(tmp_path):
    """What is missing at its beginning is no hole of its own there."""
    out, go = tmp_path / "out", tmp_path / "go"
    os.mkfifo(go)
    with out.open("wb") as file:
        session = Session.start(
            ["sh", "-c", f"echo one; read go < {go}; echo two; exec sleep 60"], stdout=file
        )
    until(out.read_bytes, "the first line")
    with out.open("wb") as file:
        go.write_text("x\n")
        until(lambda: out.read_bytes() == b"\0\0\0\0two\n", "the second line")
        with pytest.raises(RestoreFailed, match=">>"):
            session.take_over(stdout=file)
    session.terminate()
    finish(session)


_OWNER = """
import sys, time
from snaplib.session import Session
with Session.start(["sh", "-c", "echo ready; exec sleep 60"], name="left", interactive=True) as session:
    with session.raw_terminal():
        sys.stdin.buffer.raw.read(0)
        time.sleep(60)
"""


def test_an_owner_that_is_killed_leaves_its_terminal_as_it_was(screen):
    before = termios.tcgetattr(screen.slave)
    owner = subprocess.Popen(
        [sys.executable, "-c", _OWNER],
        stdin=screen.slave,
        stdout=screen.slave,
        stderr=screen.slave,
        cwd=Path(__file__).parents[2],
        start_new_session=True,
    )
    screen.expect(b"ready\r\n")
    assert termios.tcgetattr(screen.slave)[3] != before[3]
    owner.kill()
    owner.wait()
    until(lambda: termios.tcgetattr(screen.slave) == before, "the terminal is as it was")
    # What is typed now is for whoever has the terminal next.
    screen.type(b"for the shell\n")
    assert os.read(screen.slave, 100) == b"for the shell\n"
    with Session.find("left") as session:
        session.terminate()
        session.wait(_DEADLINE_S)


@pytest.mark.parametrize("closed", [0, 1, 2])
def test_a_caller_with_closed_streams(tmp_path, closed):
    out = tmp_path / "out"
    script = f"readlink /proc/self/fd/{closed} > {out}"
    code = f"from snaplib.session import Session; Session.start(['sh', '-c', {script!r}]).wait(30)"
    command = f'exec {closed}>&-; exec {sys.executable} -c "$0"'
    done = subprocess.run(
        ["sh", "-c", command, code],
        cwd=Path(__file__).parents[2],
        capture_output=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert out.read_text() == ("/dev/null\n" if closed != 1 else f"{out}\n")


def test_a_frozen_task_is_thawed_when_the_maker_of_its_dump_dies(tmp_path, require):
    require("freezer_cgroup_v2")
    cgroup = TaskCgroup.create(f"snaplib-test-{os.getpid()}", versions=[2])
    assert cgroup is not None
    ticks = tmp_path / "ticks"
    script = f"while :; do echo >> {ticks}; sleep 0.01; done"
    with Session.start(
        ["sh", "-c", script], stdout=subprocess.DEVNULL, cgroups=[cgroup.path]
    ) as session:
        until(ticks.exists, "it runs")
        assert cgroup.pids() >= {session.root_host_pid}
        maker = Session.find(session.name)
        maker.hold(thaw=[(str(cgroup.control), "0")])
        cgroup.control.write_text("1")
        until(lambda: "frozen 1" in (cgroup.path / "cgroup.events").read_text(), "it is frozen")
        size = ticks.stat().st_size
        time.sleep(0.1)
        assert ticks.stat().st_size == size
        maker.close()
        until(lambda: ticks.stat().st_size > size, "it runs again")
        session.terminate()
        session.wait(_DEADLINE_S)
    assert cgroup.remove()


def test_a_committed_dump_whose_maker_dies_is_finished():
    with Session.start(["sleep", "60"], stdout=subprocess.DEVNULL) as session:
        maker = Session.find(session.name)
        maker.hold()
        maker.saved("snapshot", end=False)
        maker.close()
        assert session.wait(_DEADLINE_S) == ExitStatus(saved="snapshot")
