"""Starts a session's init, and tells how that went."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from snaplib.errors import (
    CommandNotExecutable,
    CommandNotFound,
    HostUnfit,
    KeyBusy,
    RootRequired,
    SnaplibError,
    TaskEnded,
    UsageError,
    WrongType,
)
from snaplib.runtime import runtime_dir
from snaplib.session.control import Control
from snaplib.session.outer import LOWEST_FD, Outer

__all__ = ["environment_of", "spawn", "unique_name", "wire_text"]

_INIT = Path(__file__).resolve().parent / "nsinit"


def unique_name(command: Sequence[str]) -> str:
    """Return a name for a session that was given none."""
    program = Path(command[0]).name if command else ""
    letters = "".join(c if c.isascii() and c.isalnum() else "-" for c in program)
    return f"{letters[:32] or 'task'}-{os.urandom(4).hex()}"


def environment_of(variables: Mapping[Any, Any]) -> dict[str, str]:
    """Return an environment as text.

    Args:
        variables: Names and values, text or bytes.

    Raises:
        WrongType: They are something else.
        UsageError: One of them cannot be passed to a program.
    """
    try:
        found = {os.fsdecode(name): os.fsdecode(value) for name, value in variables.items()}
    except (AttributeError, TypeError) as error:
        raise WrongType(f"env must be names and values, both text: {error}") from None
    for name, value in found.items():
        if not name or "=" in name or "\0" in name + value:
            raise UsageError(
                f"{name!r} cannot be a variable of the environment, or has a NUL in it"
            )
    return found


def wire_text(text: str) -> str:
    """Turn what the system takes as bytes into text that JSON carries unharmed, whatever the locale is."""
    return os.fsencode(text).decode("latin-1")


def spawn(
    spec: Mapping[str, Any], outer: Outer, data: Mapping[str, Mapping[int, bytes]] | None = None
) -> tuple[Control, int]:
    """Start an init.

    Args:
        spec: What it is to do; `nsinit` reads it.
        outer: What the task's streams are connected to.
        data: Backlogs to hand over, by direction and stream.

    Returns:
        The connection to it, which makes the caller the session's owner, and a pidfd of it.

    Raises:
        CommandNotFound: The program vanished, or its interpreter is missing.
        CommandNotExecutable: It cannot be executed.
        KeyBusy: A session of that name runs.
        RootRequired: No privilege to make namespaces.
        HostUnfit: The kernel refused.
    """
    files: list[int] = []
    try:
        leftovers: dict[str, dict[int, int]] = {"inputs": {}, "outputs": {}}
        for direction, by_stream in (data or {}).items():
            for stream, content in by_stream.items():
                leftovers[direction][stream] = _memory_file(content)
                files.append(leftovers[direction][stream])
        full = {
            "cgroups": [],
            "created_at": time.time(),
            "data": files,
            "direct": outer.direct,
            "first_pid": 0,
            "last_pid": 0,
            "outer": outer.fds,
            **leftovers,
            **spec,
        }
        spec_fd = _memory_file(json.dumps(full).encode())
        files.append(spec_fd)
        ours, theirs = socket.socketpair()
        with theirs:
            report_fd = fcntl.fcntl(theirs.fileno(), fcntl.F_DUPFD_CLOEXEC, LOWEST_FD)
            files.append(report_fd)
            passed = [*outer.fds, *files]
            starter = subprocess.Popen(
                [sys.executable, "-I", "-S", str(_INIT), str(spec_fd), str(report_fd)],
                pass_fds=passed,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env={"PATH": os.defpath},
                cwd="/",
            )
    finally:
        for fd in files:
            os.close(fd)
    control = Control(ours)
    try:
        report, fds = control.receive()
    except TaskEnded:
        control.close()
        # Python itself failed: it says why on stderr, of which only the launcher has a copy by now.
        _, text = starter.communicate()
        last = text.decode(errors="replace").strip().rpartition("\n")[2]
        raise SnaplibError(
            f"the session's init did not start: {last or f'exit status {starter.returncode}'}"
        ) from None
    assert starter.stderr is not None
    starter.stderr.close()
    starter.wait()
    if "failed" in report:
        control.close()
        raise _failure(report, spec)
    return control, fds[0]


def _failure(report: Mapping[str, Any], spec: Mapping[str, Any]) -> SnaplibError:
    number, text = report["errno"], report["error"]
    if report["failed"] == "name":
        return KeyBusy(
            f"a session named {spec['name']} runs already", hint="wait for it, or choose another"
        )
    if report["failed"] == "isolate":
        if number == errno.EPERM:
            return RootRequired(f"no permission to give the task a PID namespace ({text})")
        return HostUnfit(f"the task cannot be given a PID namespace: {text}")
    if report["failed"] == "prepare":
        return HostUnfit(
            f"the task could not be given its folder {spec['cwd']}, cgroup or terminal: {text}"
        )
    if report["failed"] == "exec":
        program = spec["command"][0]
        if number in (errno.ENOENT, errno.ENOTDIR):
            path = os.fsdecode(spec["executable"].encode("latin-1"))
            if Path(path).exists():
                return CommandNotExecutable(
                    f"{program}: the interpreter it names does not exist",
                    hint="look at its first line (`#!`)",
                )
            return CommandNotFound(f"{program}: command not found", hint="check its spelling")
        return CommandNotExecutable(f"{program}: {text}", hint="check what kind of file it is")
    if number in (errno.ENOSPC, errno.EDQUOT):
        return UsageError(
            f"there is no room in the runtime folder {runtime_dir()}: {os.strerror(number)}",
            hint="make some, or name another folder in $SNAPLIB_RUNTIME_DIR",
        )
    return SnaplibError(f"the session's init failed: {text}")


def _memory_file(content: bytes) -> int:
    made = os.memfd_create("snaplib", os.MFD_CLOEXEC)
    fd = fcntl.fcntl(made, fcntl.F_DUPFD_CLOEXEC, LOWEST_FD)
    with open(made, "wb") as file:  # noqa: PTH123 - a descriptor, not a path
        file.write(content)
    os.lseek(fd, 0, os.SEEK_SET)
    return fd
