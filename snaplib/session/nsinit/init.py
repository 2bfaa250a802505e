"""PID 1 of a session: starts or takes over the task's root, reaps, forwards signals, relays, and ends with the root."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from snaplib.session.nsinit.flow import Flow
from snaplib.session.nsinit.folder import Folder
from snaplib.session.nsinit.layout import lay_out
from snaplib.session.nsinit.requests import Requests
from snaplib.session.nsinit.server import Connection, Server
from snaplib.session.nsinit.spawn import LAST_RESERVED_PID, Root, set_last_pid
from snaplib.session.nsinit.wakeups import Wakeups

__all__ = ["Init"]

_FORWARDED = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGCONT,
    signal.SIGWINCH,
    signal.SIGALRM,
)
#: Keeps a fault that comes again and again from taking a whole CPU.
_AFTER_FAULT_S = 0.1
#: How often to look what has become of a restore whose maker is gone.
_LOOK_MS = 10
_RECORD_FIELDS = ("name", "key", "host_pid", "host_start_ticks", "command", "cwd", "created_at")


class Init:
    """The init of one session.

    Args:
        spec: The specification.
        owner: A connection to whoever started the session.
    """

    def __init__(self, spec: Mapping[str, Any], owner: socket.socket) -> None:
        self.spec = spec
        #: starting, restoring, running, ending.
        self.state = "starting"
        self.root_pid = 0
        self.root_status: int | None = None
        self.folder = Folder(
            Path(spec["folder"]) / spec["name"], f"{spec['host_pid']}-{spec['host_start_ticks']}"
        )
        self.owner = Connection(owner, is_owner=True)
        self.requests = Requests(self)
        self.server = Server(self.folder.listen(), self.requests.handle, self.requests.client_gone)
        self.streams = lay_out(spec)
        #: Statuses of children that ended before it was known which is the root.
        self.early: dict[int, int] = {}
        #: The root of a task that CRIU has restored and is about to let run; 0 before.
        self.expected_root = 0
        self._left_to_criu = False
        self.deadline: float | None = None
        self._children_left = True
        self._wakeups = Wakeups((*_FORWARDED, signal.SIGCHLD))

    def run(self) -> None:
        """Serve until the root ends."""
        try:
            if not (self._start_root() if self.spec["mode"] == "launch" else self._await_restore()):
                return
        except FileExistsError:
            self._abandon({"failed": "name", "errno": 0, "error": "exists"})
            return
        except OSError as error:
            self._abandon({"failed": "init", "errno": error.errno or 0, "error": str(error)})
            return
        self.server.add(self.owner)
        while True:
            try:
                if self._finished():
                    return
                self._turn()
                if self._left_to_criu:
                    self._decide_restore()
            except Exception as error:  # noqa: BLE001 - our end would be the task's
                self.folder.log(f"{type(error).__name__}: {error}")
                time.sleep(_AFTER_FAULT_S)

    # -- the root

    def begin_ending(self, *, deadline_s: float | None = None) -> None:
        """End whatever is left, and pass on what was written."""
        self.state = "ending"
        self.deadline = None if deadline_s is None else time.monotonic() + deadline_s
        self.kill_all(signal.SIGKILL)
        self.streams.resume()
        self._pump_all()

    def kill_all(self, number: int) -> None:
        """Send a signal to every process of the namespace but this one."""
        with contextlib.suppress(ProcessLookupError):
            os.kill(-1, number)

    def adopt(self, pid: int) -> None:
        """Take a restored process as the root.

        Raises:
            ProcessLookupError: There is none, nor was there.
        """
        if pid not in self.early and not Path(f"/proc/{pid}").exists():
            raise ProcessLookupError(f"no process {pid} in the session")
        self.root_pid = pid
        self.state = "running"
        # CRIU's own pids were taken from below; what the task starts must stay out of there, for
        # the next restore.
        set_last_pid(max(LAST_RESERVED_PID, self.spec["last_pid"]))
        self.streams.close_task_ends()
        self._publish()
        # CRIU gave the task's terminal the size it had.
        self.streams.resize()
        self.streams.resume()
        self._pump_all()
        if pid in self.early:
            self.root_ended(self.early[pid])

    def root_ended(self, status: int) -> None:
        """The root ended: so does the session, unless a dump is being made of it."""
        self.root_status = status
        killed = os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGKILL
        if killed and (self.requests.saved_as is not None or self.requests.holder is not None):
            return
        if self.state != "ending":
            self.begin_ending()

    def maker_gone(self) -> None:
        """The maker of a restore is gone: the task goes on if CRIU has come so far, which goes on by itself."""
        if self.expected_root:
            self._left_to_criu = True
        else:
            self._abandon_restore()

    def _decide_restore(self) -> None:
        """See whether CRIU, left alone, has let the task run or has killed it."""
        tracer = _tracer(self.expected_root)
        if tracer is None:
            self._abandon_restore()
        if tracer == 0:
            self._left_to_criu = False
            self.adopt(self.expected_root)

    def _abandon_restore(self) -> None:
        """The restore was not finished: nothing is left, and the snapshot is as it was."""
        self.kill_all(signal.SIGKILL)
        self.folder.remove()
        os._exit(1)

    def _start_root(self) -> bool:
        root = Root(
            self.spec,
            self.streams.task_ends(),
            self.streams.controlling(),
            self.spec["oom_score_adj"],
        )
        self.streams.close_task_ends()
        self.root_pid = root.pid
        self.state = "running"
        self._publish()
        failure = root.release()
        if failure is not None:
            what, number = failure
            self._abandon({"failed": what, "errno": number, "error": os.strerror(number)})
            return False
        self._report_start()
        return True

    def _await_restore(self) -> bool:
        self.state = "restoring"
        if self.spec["first_pid"] > 2:
            set_last_pid(self.spec["first_pid"] - 1)
        self._publish()
        self._report_start()
        return True

    def _report_start(self) -> None:
        """Tell the starter; by a pidfd it knows us even if we end before it looks."""
        pidfd = os.pidfd_open(os.getpid())
        self.owner.answer(self.describe(), [pidfd])
        os.close(pidfd)

    def _abandon(self, report: dict[str, Any]) -> None:
        self.folder.remove()
        self.owner.answer(report)

    def _publish(self) -> None:
        record = {name: self.spec[name] for name in _RECORD_FIELDS}
        self.folder.publish(
            record | {"root_pid": self.root_pid, "streams": self.streams.describe()}
        )

    def describe(self) -> dict[str, Any]:
        """Return what the session is doing."""
        return {
            "state": self.state,
            "root_pid": self.root_pid,
            "host_pid": self.spec["host_pid"],
            "host_start_ticks": self.spec["host_start_ticks"],
            "held": self.requests.holder is not None,
            "streams": self.streams.describe(),
            "failures": [flow.failure for flow in self.streams.outputs() if flow.failure],
        }

    # -- the loop

    def _turn(self) -> None:
        """Wait for something, and do it."""
        flows: dict[int, Flow] = {}
        wanted = dict(self.server.interests())
        for flow in self.requests.flows():
            for fd, events in flow.interests():
                flows[fd] = flow
                wanted[fd] = events
        signals, ready = self._wakeups.wait(wanted, self._timeout_ms())
        self._take(signals)
        for fd, events in ready:
            if fd in flows:
                flows[fd].wake(fd, events)
            else:
                self.server.serve(fd)
        self.requests.tick()

    def _timeout_ms(self) -> int | None:
        if self._left_to_criu:
            return _LOOK_MS
        deadlines = [d for d in (self.deadline, self.requests.deadline) if d is not None]
        if not deadlines:
            return None
        return max(0, round((min(deadlines) - time.monotonic()) * 1000) + 1)

    def _take(self, signals: set[int]) -> None:
        for number in signals:
            if number == signal.SIGCHLD:
                self._reap()
            elif self.root_pid and self.state == "running":
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(self.root_pid, number)

    def _reap(self) -> None:
        with contextlib.suppress(ChildProcessError):
            while True:
                pid, status = os.waitpid(-1, os.WNOHANG)
                if pid == 0:
                    return
                if pid == self.root_pid:
                    self.root_ended(status)
                elif self.state == "restoring":
                    self.early[pid] = status
        self._children_left = False

    def _pump_all(self) -> None:
        for flow in self.streams.active():
            flow.pump()

    def _finished(self) -> bool:
        """Whether all is over; then the end is recorded."""
        if self.requests.saved_as is not None and self.root_status is not None:
            if self.requests.holder is not None:
                # CRIU, which kills one process after the other and then answers, lives in this
                # namespace too: our end would be its own.
                return False
            # What was not passed on is part of the snapshot.
            self.kill_all(signal.SIGKILL)
            self.folder.end({"state": "saved", "snapshot": self.requests.saved_as})
            return True
        if self.state != "ending":
            return False
        if not self._delivered() and (self.deadline is None or time.monotonic() < self.deadline):
            return False
        self.streams.close()
        status = self.root_status
        if status is None:
            status = signal.SIGKILL
        exited = os.WIFEXITED(status)
        self.folder.end(
            {
                "state": "ended",
                "exit_code": os.WEXITSTATUS(status) if exited else None,
                "signal": None if exited else os.WTERMSIG(status),
            }
        )
        return True

    def _delivered(self) -> bool:
        """Whether all that was written has been passed on."""
        outputs = [flow for flow in self.streams.outputs() if not flow.done]
        if not outputs:
            return True
        if self._children_left:
            self._reap()
        # A terminal never ends, and somebody outside may hold a pipe: empty, with nobody left to
        # write, is the end.
        return not self._children_left and not any(flow.pump() or flow.stuck for flow in outputs)


def _tracer(pid: int) -> int | None:
    """Return the pid of a process's tracer, 0 without one; None when the process has ended."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(errors="replace").splitlines()
    except OSError:
        return None
    fields = dict(line.split(":\t", 1) for line in lines if ":\t" in line)
    return None if fields["State"][0] in "ZX" else int(fields["TracerPid"])
