"""A session: one task in its own PID namespace, under an init of its own, that outlives whoever started it."""

from __future__ import annotations

import contextlib
import os
import select
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from snaplib.errors import KeyBusy, SnaplibError, TaskEnded, UsageError
from snaplib.session import registry
from snaplib.session.command import locate
from snaplib.session.control import Control
from snaplib.session.launch import spawn, unique_name, wire_text
from snaplib.session.outer import Outer, Target, place_output
from snaplib.session.record import Backlog, ExitStatus, StreamRecord, StreamsRecord
from snaplib.session.terminal import RawTerminal

__all__ = ["Session"]

#: CRIU and what it starts need pids of their own in the namespace they restore in.
_HELPER_PIDS = 64
_FIRST_FREE_PID = 2
_KILLED = 9
_COPY_BYTES = 1 << 20


class Session:
    """A session that runs, or has just ended.

    Made by `start`, `start_for_restore` and `find`.
    """

    def __init__(self, record: registry.SessionRecord, folder: Path, control: Control) -> None:
        self._record = record
        self._control = control
        self.folder = folder
        self._root_pid = record.root_pid
        self._terminal = -1
        self._rewrites: list[tuple[int, IO[bytes] | bytes]] = []
        #: By stream, CRIU's name of the task's end in the snapshot; the new ends have new names.
        self._snapshot_keys: Mapping[int, str] = {}
        try:
            self.pidfd = os.pidfd_open(record.host_pid)
        except ProcessLookupError:
            self.pidfd = -1

    # -- making one

    @classmethod
    def start(
        cls,
        command: Sequence[str],
        *,
        stdin: Target = None,
        stdout: Target = None,
        stderr: Target = None,
        cwd: str | Path | None = None,
        env: Mapping[str, str] | None = None,
        append: bool = False,
        name: str | None = None,
        key: str | None = None,
        cgroups: Sequence[Path] = (),
        interactive: bool = False,
    ) -> Session:
        """Start a command in a session of its own.

        Args:
            command: The program and its arguments.
            stdin: None inherits ours; a path, a descriptor, a file object or subprocess.DEVNULL.
            stdout: The same; a path is opened for the task itself.
            stderr: The same, or subprocess.STDOUT.
            cwd: Where it starts; default here.
            env: Its environment; default ours.
            append: Open paths for output at their end instead of emptying them.
            name: The session's name; default a new one.
            key: What the task's snapshots are looked up by, for whoever finds the session.
            cgroups: Folders of cgroups that the task is to be in from its first instruction.
            interactive: The caller will enter `raw_terminal`; until then the terminal, if there
                is one, stands still.

        Raises:
            CommandNotFound: There is no such program.
            CommandNotExecutable: It cannot be executed.
            KeyBusy: A session of that name runs.
            RootRequired: No privilege to make namespaces.
            HostUnfit: The kernel refused to.
            UsageError: `cwd` is no folder, or a path cannot be opened.
        """
        where = Path(cwd) if cwd is not None else Path.cwd()
        if not where.is_dir():
            raise UsageError(f"{where} is not a folder to start in")
        where = where.absolute()
        environment = dict(os.environ if env is None else env)
        words = [os.fspath(word) for word in command]
        program = locate(words[0] if words else "", cwd=where, environment=environment)
        spec = {
            "mode": "launch",
            "name": name or unique_name(words),
            "key": key,
            "command": words,
            "cwd": str(where),
            "executable": wire_text(str(program)),
            "argv": [wire_text(word) for word in words],
            "directory": wire_text(str(where)),
            "environment": {wire_text(n): wire_text(value) for n, value in environment.items()},
            "cgroups": [str(path / "cgroup.procs") for path in cgroups],
            "interactive": interactive,
        }
        outer = Outer(stdin, stdout, stderr, append=append)
        with contextlib.closing(outer):
            return cls._spawn(spec, outer)

    @classmethod
    def start_for_restore(
        cls,
        record: StreamsRecord,
        *,
        command: Sequence[str] = (),
        cwd: str | Path = "/",
        stdin: Target = None,
        stdout: Target = None,
        stderr: Target = None,
        backlog: Backlog | None = None,
        captured: Mapping[int, IO[bytes] | bytes] | None = None,
        name: str | None = None,
        key: str | None = None,
        reserve: Collection[int] = (),
        interactive: bool = False,
    ) -> Session:
        """Make a session without a task, for CRIU to restore one in.

        Nothing is passed on before `adopt_root`; when this process ends before that, so does the
        session.

        Args:
            record: The streams as the snapshot has them.
            command: What the task was started as, for the session's record.
            cwd: Where.
            stdin: What the streams are connected to now; see `start`.
            stdout: The same.
            stderr: The same.
            backlog: What was on its way at the dump.
            captured: By stream, what the task had written to its output file
                (`StreamsRecord.capture_sources`).
            name: The session's name; default a new one.
            key: See `start`.
            reserve: All pids, thread, group and session ids in the snapshot: CRIU must not take
                them itself.
            interactive: See `start`.

        Raises:
            RestoreFailed: Earlier output is gone from its file and was not captured.
        """
        backlog = backlog or Backlog()
        captured = captured or {}
        outer = Outer(stdin, stdout, stderr, append=True)
        with contextlib.closing(outer):
            streams, rewrites = _place(record, outer, captured)
            spec = {
                "mode": "restore",
                "name": name or unique_name(command),
                "key": key,
                "command": [*command],
                "cwd": str(cwd),
                "streams": streams,
                "first_pid": _free_pids(reserve),
                "interactive": interactive,
                "last_pid": max(reserve, default=0),
            }
            data = {"inputs": backlog.inputs, "outputs": backlog.outputs}
            keys = {stream.fds[0]: str(stream.key) for stream in record.streams}
            return cls._spawn(spec, outer, data, rewrites, keys)

    @classmethod
    def find(cls, name: str) -> Session | None:
        """Return the session of that name that runs, whoever started it; None when there is none.

        What of it is left when it has ended is for `last_status` and `cleanup_ended`.
        """
        folder = registry.folder_of(name)
        record = registry.read_record(folder)
        if record is None or not record.alive:
            return None
        try:
            control = Control.connect(folder)
            description, _ = control.ask("status")
        except TaskEnded:
            return None
        session = cls(record, folder, control)
        session._root_pid = description["root_pid"]
        return session

    @staticmethod
    def last_status(name: str) -> ExitStatus | None:
        """Return how the session of that name ended; None when it runs or there was none."""
        folder = registry.folder_of(name)
        record = registry.read_record(folder)
        if record is None or record.alive:
            return None
        return registry.read_status(folder) or ExitStatus(signal=_KILLED)

    @classmethod
    def of_root(cls, pid: int) -> Session | None:
        """Return the session whose task has this root; None when there is none.

        Args:
            pid: The root's pid, as seen here.
        """
        for name in registry.names():
            session = cls.find(name)
            if session is None:
                continue
            with contextlib.suppress(TaskEnded):
                if session.root_host_pid == pid:
                    return session
            session.close()
        return None

    @staticmethod
    def forget(name: str) -> None:
        """Remove what is left of the session of that name, unless it runs."""
        folder = registry.folder_of(name)
        record = registry.read_record(folder)
        if record is None or not record.alive:
            registry.remove(folder)

    @classmethod
    def _spawn(
        cls,
        spec: dict[str, Any],
        outer: Outer,
        data: Mapping[str, Mapping[int, bytes]] | None = None,
        rewrites: Sequence[tuple[int, IO[bytes] | bytes]] = (),
        snapshot_keys: Mapping[int, str] | None = None,
    ) -> Session:
        folder = registry.folder_of(spec["name"])
        found = registry.read_record(folder)
        if found is not None and found.alive:
            raise KeyBusy(
                f"a session named {spec['name']} runs already, pid {found.host_pid}",
                hint="wait for it, or choose another name",
            )
        registry.remove(folder)
        registry.sweep()
        control, _ = spawn(spec | {"folder": str(folder.parent)}, outer, data)
        record = registry.read_record(folder)
        if record is None:
            raise TaskEnded(f"the session {spec['name']} has ended and was removed")
        session = cls(record, folder, control)
        session._keep_terminal(outer)
        session._snapshot_keys = snapshot_keys or {}
        session._rewrites = [(os.dup(outer.fds[stream]), source) for stream, source in rewrites]
        return session

    # -- what it is

    @property
    def name(self) -> str:
        """The session's name."""
        return self._record.name

    @property
    def key(self) -> str | None:
        """What the task's snapshots are looked up by."""
        return self._record.key

    @property
    def command(self) -> tuple[str, ...]:
        """What was run."""
        return self._record.command

    @property
    def cwd(self) -> str:
        """Where it was run."""
        return self._record.cwd

    @property
    def host_pid(self) -> int:
        """The init's pid, as seen here."""
        return self._record.host_pid

    @property
    def root_pid(self) -> int:
        """The pid of the task's root in the session's namespace; 0 before a restore is finished."""
        return self._root_pid

    @property
    def root_host_pid(self) -> int:
        """The pid of the task's root, as seen here.

        Raises:
            TaskEnded: There is no such process any more.
        """
        # proc_pid_children(5) needs CONFIG_PROC_CHILDREN, as CRIU does.
        children = Path(f"/proc/{self.host_pid}/task/{self.host_pid}/children")
        with contextlib.suppress(OSError):
            for pid in map(int, children.read_text().split()):
                if _pid_inside(pid) == self._root_pid:
                    return pid
        raise TaskEnded(f"the task of session {self.name} has ended")

    @property
    def alive(self) -> bool:
        """Whether the session's init runs."""
        return self._record.alive

    def enter_prefix(self) -> list[str]:
        """Return what to put before a command to run it in the session's PID and mount namespaces."""
        return ["nsenter", "-t", str(self.host_pid), "-p", "-m", "--"]

    def streams(self) -> StreamsRecord:
        """Return the streams as they are now."""
        return _streams_of(self._control.ask("status")[0])

    def status(self) -> dict[str, Any]:
        """Return what the init tells about itself."""
        return self._control.ask("status")[0]

    # -- a dump

    def hold(self, *, thaw: Sequence[tuple[str, str]] = (), sends_continue: bool = False) -> None:
        """Tell that a dump begins: the root's death by SIGKILL is not the task's end any more.

        If this process dies before `release` or `saved`, the init undoes the freeze, and the task
        goes on.

        Args:
            thaw: Files and what to write to them to let the task run again, for example a cgroup's
                freezer.
            sends_continue: Send SIGCONT to all of the task for that.

        Raises:
            SnaplibError: Another dump is being made.
        """
        self._control.ask("hold", thaw=list(thaw), sends_continue=sends_continue)

    def drain(self, deadline_s: float) -> tuple[Backlog, StreamsRecord]:
        """Pass on what the stopped task has written, and tell what is left; after that nothing
        moves.

        Between `hold` and `release` or `saved` only. The task must be frozen.

        Args:
            deadline_s: How long to wait for those who read the output.

        Returns:
            What could not be passed on, or was not read by the task, and the streams as they are
            now.
        """
        answer, fds = self._control.ask("drain", deadline_s=deadline_s, timeout_s=deadline_s + 30.0)
        contents = []
        for fd in fds:
            with open(fd, "rb") as file:  # noqa: PTH123 - a descriptor, not a path
                file.seek(0)
                contents.append(file.read())
        backlog = Backlog(
            inputs={int(fd): contents[index] for fd, index in answer["inputs"].items()},
            outputs={int(fd): contents[index] for fd, index in answer["outputs"].items()},
        )
        return backlog, _streams_of(answer)

    def release(self) -> None:
        """Tell that no dump is being made any more: the task, already thawed, goes on, nothing lost or doubled."""
        self._control.ask("release")

    def saved(self, snapshot: str, *, end: bool = True) -> None:
        """Tell that the dump is committed: a snapshot has taken the task's place.

        Args:
            snapshot: Its id.
            end: Let the init kill the task; otherwise someone does, and `release` lets it end.
        """
        with contextlib.suppress(TaskEnded):
            self._control.ask("saved", snapshot=snapshot, end=end)

    # -- a restore

    def inherit_fds(self) -> list[tuple[int, str]]:
        """Return the task's new ends of its streams, each with the key CRIU knows it by.

        They are for CRIU's ``inherit_fd``; the caller closes them once CRIU has them.
        """
        answer, fds = self._control.ask("inherit")
        keys = self._snapshot_keys
        return [(fd, str(keys[first])) for first, fd in zip(answer["streams"], fds, strict=True)]

    def adopt_root(self, root_pid: int) -> None:
        """Tell that CRIU has restored the task: the streams begin to move, earlier output first.

        Args:
            root_pid: The root's pid in the session's namespace.

        Raises:
            SnaplibError: There is no such process.
        """
        for fd, source in self._rewrites:
            _copy(source, fd)
            os.close(fd)
        self._rewrites = []
        self._control.ask("adopt_root", root_pid=root_pid)
        self._root_pid = root_pid

    # -- looking after it

    def take_over(
        self, *, stdin: Target = None, stdout: Target = None, stderr: Target = None
    ) -> None:
        """Connect the streams of a session that was found to our descriptors, and become its owner.

        Raises:
            RestoreFailed: An output file was emptied while the task still writes to it.
        """
        outer = Outer(stdin, stdout, stderr, append=True)
        with contextlib.closing(outer):
            known = {}
            for stream in self.streams().streams:
                if stream.kind == "pipe" and stream.direction == "out":
                    known[stream.fds[0]], _ = place_output(
                        stream, outer.fds[stream.fds[0]], captured=False
                    )
            self._control.ask("streams", fds=outer.fds, known=known)
            self._keep_terminal(outer)

    def raw_terminal(self) -> RawTerminal:
        """Return what makes our terminal raw while the task has one of its own, for a `with` block.

        Only inside it are keys taken from the terminal.
        """
        return RawTerminal(self._control, self._terminal)

    def signal(self, number: int) -> None:
        """Send a signal to the root's process group, through the init."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.host_pid, number)

    def terminate(self) -> None:
        """Kill everything in the session."""
        with contextlib.suppress(TaskEnded):
            self._control.ask("terminate")

    def wait(self, timeout_s: float | None = None) -> ExitStatus:
        """Wait for the end of the session.

        Works for whoever found the session too.

        Raises:
            TimeoutError: It has not ended yet.
        """
        if self.pidfd >= 0 and self._record.alive:
            poll = select.poll()
            poll.register(self.pidfd, select.POLLIN)
            if not poll.poll(None if timeout_s is None else round(timeout_s * 1000)):
                raise TimeoutError(f"session {self.name} has not ended after {timeout_s} s")
        return registry.read_status(self.folder) or ExitStatus(signal=_KILLED)

    def cleanup(self) -> None:
        """Remove the folder of a session that has ended, and close what we have of it."""
        if not self.alive:
            registry.remove(self.folder)
        self.close()

    def discard(self, timeout_s: float = 10.0) -> None:
        """Kill everything in the session, wait for its end and remove what is left of it.

        Args:
            timeout_s: How long to wait.
        """
        self.terminate()
        with contextlib.suppress(TimeoutError):
            self.wait(timeout_s)
        self.cleanup()

    def close(self) -> None:
        """Let go of the session, which goes on."""
        self._control.close()
        for fd in (self.pidfd, self._terminal, *(fd for fd, _ in self._rewrites)):
            if fd >= 0:
                os.close(fd)
        self.pidfd = self._terminal = -1
        self._rewrites = []

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def _keep_terminal(self, outer: Outer) -> None:
        if self._terminal >= 0:
            os.close(self._terminal)
            self._terminal = -1
        has_pty = any(stream.kind == "terminal" for stream in self._record.streams.streams)
        if has_pty and outer.terminal >= 0:
            self._terminal = os.dup(outer.terminal)


def _place(
    record: StreamsRecord, outer: Outer, captured: Mapping[int, IO[bytes] | bytes]
) -> tuple[list[dict[str, Any]], list[tuple[int, IO[bytes] | bytes]]]:
    """Connect recorded streams to new outer ends: what the init is told, and what is to be written first."""
    streams: list[dict[str, Any]] = []
    rewrites: list[tuple[int, IO[bytes] | bytes]] = []
    for stream in record.streams:
        told = stream.to_json()
        if stream.kind == "pipe" and stream.direction == "out":
            first = stream.fds[0]
            counts, rewrite = place_output(stream, outer.fds[first], captured=first in captured)
            told["outer"] = _outer_now(stream, outer.fds[first]) | counts
            if rewrite:
                rewrites.append((first, captured[first]))
        streams.append(told)
    return streams, rewrites


def _outer_now(stream: StreamRecord, fd: int) -> dict[str, Any]:
    from snaplib.session.nsinit.outer import identity  # noqa: PLC0415

    return identity(fd) if stream.kind == "pipe" else {}


def _streams_of(answer: Mapping[str, Any]) -> StreamsRecord:
    return StreamsRecord(tuple(StreamRecord.from_json(stream) for stream in answer["streams"]))


def _pid_inside(host_pid: int) -> int:
    """Return a process's pid in its innermost namespace; 0 when it has gone."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{host_pid}/status").read_text().splitlines():
            if line.startswith("NSpid:"):
                return int(line.split()[-1])
    return 0


def _free_pids(reserve: Collection[int]) -> int:
    """Return the first of enough pids in a row that are not reserved.

    Raises:
        SnaplibError: There are none.
    """
    limit = int(Path("/proc/sys/kernel/pid_max").read_text())
    first = _FIRST_FREE_PID
    for pid in [*sorted(reserve), limit]:
        if pid - first >= _HELPER_PIDS:
            return first
        first = max(first, pid + 1)
    raise SnaplibError("the task leaves no pids free for CRIU to work with")


def _copy(source: IO[bytes] | bytes, fd: int) -> None:
    parts = [source] if isinstance(source, bytes) else iter(lambda: source.read(_COPY_BYTES), b"")
    for part in parts:
        left = memoryview(part)
        while left:
            left = left[os.write(fd, left) :]
