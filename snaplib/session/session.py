"""A session: one task in its own PID namespace, under an init of its own, that outlives whoever started it."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from snaplib.arguments import command_words, path, text
from snaplib.errors import KeyBusy, TaskEnded, UsageError
from snaplib.session import registry
from snaplib.session.command import locate
from snaplib.session.control import Control
from snaplib.session.launch import environment_of, spawn, unique_name, wire_text
from snaplib.session.outer import Outer, Target, check_output, place_streams
from snaplib.session.pids import free_pids
from snaplib.session.record import Backlog, ExitStatus, StreamsRecord
from snaplib.session.restorable import RestorableSession

__all__ = ["Session"]


class Session(RestorableSession):
    """A session that runs, or has just ended.

    Made by `start`, `start_for_restore`, `find` and `of_root`.
    """

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
        adopt_orphans: bool = False,
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
            adopt_orphans: Processes that lose their parent become children of the command, not of
                the init: so they are saved with it, and a command that waits for all its children
                waits for them too.

        Raises:
            CommandNotFound: There is no such program.
            CommandNotExecutable: It cannot be executed.
            KeyBusy: A session of that name runs.
            RootRequired: No privilege to make namespaces.
            HostUnfit: The kernel refused to.
            UsageError: `cwd` is no folder, a path cannot be opened, or an argument is not what it can be.
        """
        words = command_words(command)
        for what, value in (("name", name), ("key", key)):
            if value is not None:
                text(what, value)
        where = Path(path("cwd", cwd)) if cwd is not None else Path.cwd()
        if not where.is_dir():
            raise UsageError(f"{where} is not a folder to start in")
        where = where.absolute()
        environment = dict(os.environ) if env is None else environment_of(env)
        program = locate(words[0] if words else "", cwd=where, environment=environment)
        spec = {
            "mode": "launch",
            "name": name or unique_name(words),
            "key": key,
            "command": list(words),
            "cwd": str(where),
            "executable": wire_text(str(program)),
            "argv": [wire_text(word) for word in words],
            "directory": wire_text(str(where)),
            "environment": {wire_text(n): wire_text(value) for n, value in environment.items()},
            "cgroups": [str(path / "cgroup.procs") for path in cgroups],
            "adopt_orphans": adopt_orphans,
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
        session, unless `expect_root` was called and CRIU lets the task run.

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
            streams, rewrites = place_streams(record, outer, backlog, captured)
            spec = {
                "mode": "restore",
                "name": name or unique_name(command),
                "key": key,
                "command": [*command],
                "cwd": str(cwd),
                "streams": streams,
                "first_pid": free_pids(reserve),
                "interactive": interactive,
                "last_pid": max(reserve, default=0),
            }
            data = {"inputs": backlog.inputs, "outputs": backlog.outputs}
            keys = {stream.fds[0]: str(stream.key) for stream in record.streams}
            again = [(fd, captured[fd]) for fd in rewrites]
            return cls._spawn(spec, outer, data, again, keys)

    @classmethod
    def find(cls, name: str) -> Session | None:
        """Return the session of that name that runs, whoever started it; None when there is none.

        What of it is left when it has ended is for `last_status` and `forget`.
        """
        folder = registry.folder_of(name)
        record = registry.read_record(folder)
        if record is None or not record.alive:
            return None
        try:
            pidfd = os.pidfd_open(record.host_pid)
        except ProcessLookupError:
            return None
        try:
            control = Control.connect(folder)
            description, _ = control.ask("status")
        except TaskEnded:
            os.close(pidfd)
            return None
        session = cls(record, folder, control, pidfd)
        session._root_pid = description["root_pid"]
        return session

    @staticmethod
    def lives(name: str) -> bool:
        """Return whether there is a session of that name, be it that it is just ending."""
        record = registry.read_record(registry.folder_of(name))
        return record is not None and record.alive

    @staticmethod
    def last_status(name: str) -> ExitStatus | None:
        """Return how the session of that name ended; None when it runs or there was none."""
        folder = registry.folder_of(name)
        record = registry.read_record(folder)
        if record is None or record.alive:
            return None
        return registry.read_status(folder) or ExitStatus(signal=registry.KILLED)

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
        control, pidfd = spawn(spec | {"folder": str(folder.parent)}, outer, data)
        record = registry.read_record(folder)
        if record is None:
            control.close()
            os.close(pidfd)
            raise TaskEnded(f"the session {spec['name']} has ended and was removed")
        session = cls(record, folder, control, pidfd)
        session._keep_terminal(outer)
        session._snapshot_keys = snapshot_keys or {}
        session._rewrites = [(os.dup(outer.fds[fd]), source) for fd, source in rewrites]
        return session

    def take_over(
        self, *, stdin: Target = None, stdout: Target = None, stderr: Target = None
    ) -> None:
        """Connect the streams of a session that was found to our descriptors, and become its owner.

        Raises:
            RestoreFailed: An output file was emptied while the task still writes to it.
        """
        outer = Outer(stdin, stdout, stderr, append=True)
        with contextlib.closing(outer):
            for stream in self.streams().streams:
                if stream.kind == "pipe" and stream.direction == "out":
                    check_output(stream, outer.fds[stream.fds[0]])
            self._control.ask("streams", fds=outer.fds)
            self._keep_terminal(outer)
