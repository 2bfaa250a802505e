"""A session's streams across a dump and a restore by CRIU itself: every byte once, in order."""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path

import attrs
import pytest

from snaplib.criu import find_criu
from snaplib.errors import RestoreFailed
from snaplib.session import Backlog, ExitStatus, Session, StreamsRecord

pytestmark = pytest.mark.require("root", "criu", "pid_namespace", "mount_namespace")

_DEADLINE_S = 60.0
_LINES = 40_000

#: Writes numbered lines, faster than they are read, and the last of them once it may end: see `finish`.
_WRITER = f"""
import os, sys, time
for number in range({_LINES}):
    while number == {_LINES - 1} and not os.path.exists(os.environ["MAY_END"]):
        sys.stdout.flush()
        time.sleep(0.01)
    sys.stdout.write(f"{{number}} {{'x' * (number % 97)}}\\n")
    if number % 1000 == 0:
        sys.stdout.flush()
        time.sleep(0.01)
"""


def written() -> bytes:
    return "".join(f"{number} {'x' * (number % 97)}\n" for number in range(_LINES)).encode()


@attrs.frozen
class Saved:
    """What a snapshot would hold."""

    images: Path
    record: StreamsRecord
    backlog: Backlog
    captured: dict[int, bytes]
    pids: frozenset[int]


@pytest.fixture(autouse=True)
def _own_runtime_dir(tmp_path, monkeypatch):
    monkeypatch.setenv("SNAPLIB_RUNTIME_DIR", str(tmp_path / "run"))
    monkeypatch.setenv("MAY_END", str(tmp_path / "may-end"))
    yield
    for path in (tmp_path / "run" / "sessions").glob("*"):
        found = Session.find(path.name)
        if found is not None:
            found.terminate()
            found.close()


def criu(
    session: Session, *arguments: str, images: Path, pass_fds: list[int] | None = None
) -> None:
    images.mkdir(exist_ok=True)
    done = subprocess.run(
        [
            *session.enter_prefix(),
            *(str(find_criu().path), *arguments),
            *("-D", str(images), "-o", "log", "-v2", "--manage-cgroups=ignore"),
        ],
        pass_fds=pass_fds or [],
        capture_output=True,
        check=False,
    )
    assert done.returncode == 0, (images / "log").read_text()[-3000:]


def save(session: Session, images: Path, *, drain_s: float = 0.2) -> Saved:
    """Dump the task as a snapshot would, and end it."""
    external = [word for key in session.streams().external() for word in ("--external", key)]
    session.hold(sends_continue=True)
    root = str(session.root_pid)
    criu(session, "dump", "--leave-stopped", "-t", root, *external, images=images)
    backlog, record = session.drain(drain_s)
    captured = {}
    for source in record.capture_sources():
        content = Path(source.path).read_bytes()
        end = source.offset_bytes + source.length_bytes
        captured[source.stream] = content[source.offset_bytes : end]
    session.saved("snapshot")
    assert session.wait(_DEADLINE_S) == ExitStatus(saved="snapshot")
    session.cleanup()
    # Through the format that the manifest has.
    return Saved(
        images,
        StreamsRecord.from_json(record.to_json()),
        Backlog.from_json(backlog.to_json()),
        captured,
        frozenset({session.root_pid}),
    )


def load(saved: Saved, **streams) -> Session:
    """Restore what was saved."""
    session = Session.start_for_restore(
        saved.record,
        backlog=saved.backlog,
        captured=saved.captured,
        reserve=saved.pids,
        **streams,
    )
    inherited = session.inherit_fds()
    options = [word for fd, key in inherited for word in ("--inherit-fd", f"fd[{fd}]:{key}")]
    fds = [fd for fd, _ in inherited]
    criu(session, "restore", "-d", *options, images=saved.images, pass_fds=fds)
    for fd in fds:
        os.close(fd)
    session.adopt_root(min(saved.pids))
    return session


def finish(session: Session) -> ExitStatus:
    """Let the task end: not before its last dump, however late that comes on a loaded machine."""
    Path(os.environ["MAY_END"]).touch()
    status = session.wait(_DEADLINE_S)
    session.cleanup()
    return status


class Reader(threading.Thread):
    """Reads a pipe slowly until its end."""

    def __init__(self, fd: int, pause_s: float) -> None:
        # A daemon: the session of a test that fails may hold the other end for ever.
        super().__init__(daemon=True)
        self._fd = fd
        self._pause_s = pause_s
        self.data = b""
        self.start()

    def run(self) -> None:
        while part := os.read(self._fd, 20_011):
            self.data += part
            time.sleep(self._pause_s)
        os.close(self._fd)


@pytest.mark.parametrize("pause_s", [0.0, 0.02], ids=["fast", "slow"])
def test_a_pipe_gets_every_line_once(tmp_path, eventually, pause_s):
    reading, writing = os.pipe()
    reader = Reader(reading, pause_s)
    session = Session.start([sys.executable, "-c", _WRITER], stdout=writing)
    for turn in range(1 if pause_s else 2):
        eventually(lambda turn=turn: len(reader.data) > 300_000 * (turn + 1), "some output")
        saved = save(session, tmp_path / f"images{turn}", drain_s=0.01)
        if pause_s:
            assert saved.backlog.outputs[1]
        session = load(saved, stdout=writing)
    os.close(writing)
    assert finish(session) == ExitStatus(exit_code=0)
    reader.join()
    assert reader.data == written()


@pytest.mark.parametrize("kind", ["emptied", "appended", "kept open", "other"])
def test_a_file_gets_every_line_once(tmp_path, eventually, kind):
    out = tmp_path / "out"
    modes = {"emptied": ("wb", "wb"), "appended": ("ab", "ab"), "kept open": ("wb", "r+b")}
    first, again = modes.get(kind, ("wb", "wb"))
    with out.open(first) as file:
        session = Session.start([sys.executable, "-c", _WRITER], stdout=file)
    eventually(lambda: out.stat().st_size > 300_000, "some output")
    saved = save(session, tmp_path / "images")
    other = tmp_path / "other"
    with (other if kind == "other" else out).open(again) as file:
        session = load(saved, stdout=file)
    assert finish(session) == ExitStatus(exit_code=0)
    got = out.read_bytes() + (other.read_bytes() if kind == "other" else b"")
    assert got == written()


def test_a_file_is_emptied_again_and_again(tmp_path, eventually):
    out = tmp_path / "out"
    with out.open("wb") as file:
        session = Session.start([sys.executable, "-c", _WRITER], stdout=file)
    for turn in range(3):
        eventually(lambda turn=turn: out.stat().st_size > 300_000 * (turn + 1), "some output")
        saved = save(session, tmp_path / f"images{turn}")
        with out.open("wb") as file:
            session = load(saved, stdout=file)
    assert finish(session) == ExitStatus(exit_code=0)
    assert out.read_bytes() == written()


def test_a_file_that_was_emptied_and_not_captured_is_told(tmp_path, eventually):
    out = tmp_path / "out"
    with out.open("wb") as file:
        session = Session.start([sys.executable, "-c", _WRITER], stdout=file)
    eventually(lambda: out.stat().st_size > 300_000, "some output")
    saved = attrs.evolve(save(session, tmp_path / "images"), captured={})
    with out.open("wb") as file, pytest.raises(RestoreFailed, match=">>"):
        load(saved, stdout=file)


#: Copies its input, but for the last part only once it may end.
_READER = """
import os, sys, time
done = 0
while part := os.read(0, 4099):
    done += os.write(1, part)
    time.sleep(0.0005)
    while done > 1_000_000 and not os.path.exists(os.environ["MAY_END"]):
        time.sleep(0.01)
"""


def test_input_from_a_pipe_is_read_once(tmp_path, eventually):
    reading, writing = os.pipe()
    out = tmp_path / "out"
    content = written()

    def feed() -> None:
        with os.fdopen(writing, "wb") as file:
            file.write(content)

    feeder = threading.Thread(target=feed)
    with out.open("ab") as file:
        session = Session.start([sys.executable, "-c", _READER], stdin=reading, stdout=file)
        feeder.start()
        for turn in range(2):
            eventually(lambda turn=turn: out.stat().st_size > 200_000 * (turn + 1), "some output")
            saved = save(session, tmp_path / f"images{turn}")
            assert saved.backlog.inputs[0]
            session = load(saved, stdin=reading, stdout=file)
    os.close(reading)
    assert finish(session) == ExitStatus(exit_code=0)
    feeder.join()
    assert out.read_bytes() == content


def test_input_of_a_pipeline_that_runs_again_is_read_once(tmp_path, eventually):
    out = tmp_path / "out"
    content = written()
    feeders = []

    def pipeline() -> int:
        """Begin the input anew, as a shell does that is given the same line again."""
        reading, writing = os.pipe()

        def feed() -> None:
            # The first ones are cut off in the middle.
            with contextlib.suppress(BrokenPipeError), os.fdopen(writing, "wb") as file:
                file.write(content)

        feeders.append(threading.Thread(target=feed))
        feeders[-1].start()
        return reading

    with out.open("ab") as file:
        reading = pipeline()
        session = Session.start([sys.executable, "-c", _READER], stdin=reading, stdout=file)
        os.close(reading)
        for turn in range(3):
            eventually(lambda turn=turn: out.stat().st_size > 200_000 * (turn + 1), "some output")
            saved = save(session, tmp_path / f"images{turn}")
            assert saved.backlog.inputs[0]
            reading = pipeline()
            session = load(saved, stdin=reading, stdout=file)
            os.close(reading)
        # And once more without a dump, as if only the supervisor had died.
        reading = pipeline()
        session.take_over(stdin=reading, stdout=file)
        os.close(reading)
    assert finish(session) == ExitStatus(exit_code=0)
    for feeder in feeders:
        feeder.join()
    assert out.read_bytes() == content


def test_input_that_has_ended_ends_after_a_restore_too(tmp_path, eventually):
    reading, writing = os.pipe()
    out = tmp_path / "out"
    os.write(writing, b"z" * 60_000)
    os.close(writing)
    with out.open("ab") as file:
        slowly = _READER.replace("0.0005", "0.1")
        session = Session.start([sys.executable, "-c", slowly], stdin=reading, stdout=file)
        os.close(reading)
        eventually(lambda: session.streams().streams[0].ended, "the end was seen")
        saved = save(session, tmp_path / "images")
        assert saved.record.streams[0].ended
        session = load(saved, stdin=subprocess.DEVNULL, stdout=file)
    assert finish(session) == ExitStatus(exit_code=0)
    assert out.read_bytes() == b"z" * 60_000


def test_an_input_file_goes_on_where_it_was(tmp_path, eventually):
    source, out = tmp_path / "source", tmp_path / "out"
    source.write_bytes(written()[:500_000])
    with out.open("ab") as file:
        slowly = _READER.replace("0.0005", "0.005")
        session = Session.start([sys.executable, "-c", slowly], stdin=source, stdout=file)
        eventually(lambda: out.stat().st_size > 50_000, "some output")
        saved = save(session, tmp_path / "images")
        session = load(saved, stdin=source, stdout=file)
    assert finish(session) == ExitStatus(exit_code=0)
    assert out.read_bytes() == source.read_bytes()


_TALKER = """
import os, sys, termios
print("pid", os.getpid(), os.isatty(0), os.isatty(1), flush=True)
attributes = termios.tcgetattr(0)
attributes[3] &= ~termios.ECHO
termios.tcsetattr(0, termios.TCSANOW, attributes)
print("ready", flush=True)
for line in sys.stdin:
    size = os.get_terminal_size()
    group = os.tcgetpgrp(0) == os.getpgrp()
    print("heard", line.strip(), size.lines, size.columns, group, open("/dev/tty", "wb").isatty(), flush=True)
    if line.strip() == "loop":
        while True:
            pass
"""


def test_a_terminal_goes_on(tmp_path, eventually):
    first, second = Screen(), Screen(rows=31)
    session = Session.start([sys.executable, "-c", _TALKER], interactive=True, **first.streams)
    with session.raw_terminal():
        first.expect(b"ready\r\n")
        first.type(b"one\r")
        first.expect(b"heard one 23 71 True True\r\n")
        os.kill(session.root_host_pid, signal.SIGSTOP)
        state = Path(f"/proc/{session.root_host_pid}/stat")
        eventually(lambda: state.read_text().rpartition(")")[2].split()[0] == "T", "it stops")
        # Typed, and not read before the dump.
        first.type(b"two\rthr")
        time.sleep(0.2)
        saved = save(session, tmp_path / "images")
    assert saved.backlog.inputs[0] == b"two\nthr"
    session = load(saved, interactive=True, **second.streams)
    # It was stopped when it was dumped, and so it soon is again.
    again = Path(f"/proc/{session.root_host_pid}/stat")
    eventually(lambda: again.read_text().rpartition(")")[2].split()[0] == "T", "it stops")
    os.kill(session.root_host_pid, signal.SIGCONT)
    with session.raw_terminal():
        second.expect(b"heard two 31 71 True True\r\n")
        second.type(b"ee\r")
        second.expect(b"heard three 31 71 True True\r\n")
        second.type(b"loop\r")
        second.expect(b"heard loop")
        second.type(b"\x03")
        assert finish(session) == ExitStatus(signal=signal.SIGINT)
    second.expect(b"KeyboardInterrupt")
    # It had turned echo off: nothing but its own words was shown.
    assert (first.shown + second.shown).count(b"three") == 1
    assert first.shown.count(b"ready") == 1
    assert b"ready" not in second.shown
    for screen in (first, second):
        screen.close()


class Screen:
    """An outer terminal: what is typed into it and what it shows."""

    def __init__(self, rows: int = 23) -> None:
        self.master, self.slave = os.openpty()
        termios.tcsetwinsize(self.slave, (rows, 71))
        self.shown = b""

    @property
    def streams(self) -> dict[str, int]:
        return {"stdin": self.slave, "stdout": self.slave, "stderr": self.slave}

    def type(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def expect(self, text: bytes) -> None:
        give_up = time.monotonic() + _DEADLINE_S
        while text not in self.shown:
            ready, _, _ = select.select([self.master], [], [], max(0, give_up - time.monotonic()))
            assert ready, f"never shown: {text!r}; shown: {self.shown!r}"
            self.shown += os.read(self.master, 1 << 16)

    def close(self) -> None:
        os.close(self.master)
        os.close(self.slave)


def test_a_restore_whose_maker_dies_leaves_nothing(tmp_path, eventually):
    code = """
import os, signal
from snaplib.session import Session, StreamsRecord
session = Session.start_for_restore(StreamsRecord(()), name="half")
os.kill(os.getpid(), signal.SIGKILL)
"""
    subprocess.run([sys.executable, "-c", code], check=False, cwd=Path(__file__).parents[2])
    sessions = tmp_path / "run" / "sessions"
    eventually(lambda: not list(sessions.iterdir()), "the session is gone")
    assert Session.find("half") is None


def test_pids_of_the_snapshot_are_left_free(tmp_path):
    reserve = [2, 3, 40, 41, *range(100, 300)]
    with Session.start_for_restore(StreamsRecord(()), reserve=reserve) as session:
        done = subprocess.run(
            [*session.enter_prefix(), "sh", "-c", "echo $$; sh -c 'echo $$'"],
            capture_output=True,
            text=True,
            check=True,
        )
        pids = [int(word) for word in done.stdout.split()]
        assert pids == [300, 301]
        session.terminate()
        session.wait(_DEADLINE_S)


def test_a_terminal_task_goes_on_without_one(tmp_path, eventually):
    screen = Screen()
    session = Session.start([sys.executable, "-c", _TALKER], interactive=True, **screen.streams)
    with session.raw_terminal():
        screen.expect(b"ready\r\n")
        saved = save(session, tmp_path / "images")
    screen.close()
    (input_reading, input_writing), (reading, writing) = os.pipe(), os.pipe()
    session = load(saved, stdin=input_reading, stdout=writing, interactive=True)
    for fd in (input_reading, writing):
        os.close(fd)
    with session.raw_terminal():
        os.write(input_writing, b"two\n")
        with os.fdopen(reading, "rb") as lines:
            assert lines.readline() == b"heard two 23 71 True True\r\n"
            session.terminate()
            session.wait(_DEADLINE_S)
    session.cleanup()
    os.close(input_writing)
