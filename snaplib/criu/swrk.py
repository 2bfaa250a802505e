"""One conversation with ``criu swrk``: a request, its notifications, its answer.

``criu swrk FD`` serves one client over a SOCK_SEQPACKET socket.  While it works it may notify the client and wait for
a yes or no; the tasks are frozen meanwhile (CRIU: criu/cr-service.c, criu/action-scripts.c).
"""

from __future__ import annotations

import os
import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import attrs

from snaplib.criu.binary import Criu
from snaplib.criu.protocol import rpc_messages

__all__ = ["CriuError", "Notification", "Swrk"]

_MESSAGE_MAX_BYTES = 1 << 20


class CriuError(Exception):
    """CRIU answered that it failed, or did not answer at all.  Engine-internal: becomes a SnaplibError above.

    Args:
        message: What it said.
        errno: CRIU's ``cr_errno``, 0 if it gave none.
    """

    def __init__(self, message: str, errno: int = 0) -> None:
        super().__init__(message)
        self.errno = errno


@attrs.frozen
class Notification:
    """A stage CRIU has reached, waiting for a yes or no.

    Attributes:
        stage: CRIU's name of it, for example ``post-dump``.
        pid: The root task's pid as CRIU sees it, where the stage tells it, else 0.
    """

    stage: str
    pid: int


class Swrk:
    """A ``criu swrk`` process.

    Args:
        criu: The binary.
        enter: What to put before the command, for example nsenter and its arguments.
        pass_fds: Descriptors that CRIU inherits under the same numbers.
        environment: Variables for CRIU alone, not for the command before it.
    """

    def __init__(
        self,
        criu: Criu,
        *,
        enter: Sequence[str] = (),
        pass_fds: Sequence[int] = (),
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.messages: Any = rpc_messages(criu)
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            command = [str(criu.path), "swrk", str(theirs.fileno())]
            if environment:
                # env(1) sets them after the command before it, which a library for CRIU could break.
                variables = [f"{name}={value}" for name, value in environment.items()]
                command = ["env", *variables, *command]
            self._process = subprocess.Popen(
                [*enter, *command],
                pass_fds=[theirs.fileno(), *pass_fds],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                # A Ctrl-C on our terminal is ours to handle: CRIU must never be killed while it holds a task.
                start_new_session=True,
                env={"PATH": os.defpath},
            )

    def request(
        self,
        message: Any,
        *,
        on_notify: Callable[[Notification], Any] | None = None,
    ) -> Any:
        """Send one request and answer notifications until the response comes.

        Args:
            message: A ``criu_req``.
            on_notify: Called for each notification.  What it returns answers CRIU: false vetoes the stage (the
                request then fails and tasks run on), a ``criu_opts`` agrees and adds options, anything else agrees.
                An exception vetoes and is raised again once CRIU has cleaned up.

        Returns:
            The ``criu_resp``.

        Raises:
            CriuError: CRIU says it failed, or ended without an answer.
        """
        self._ours.send(message.SerializeToString())
        failure: BaseException | None = None
        while True:
            answer = self._receive()
            if answer.type != self.messages.NOTIFY:
                break
            verdict: Any = True
            if on_notify is not None and failure is None:
                try:
                    verdict = on_notify(Notification(answer.notify.script, answer.notify.pid))
                except BaseException as error:  # noqa: BLE001 - raised again below
                    # CRIU must hear a no before anything else happens: the tasks are frozen.
                    failure = error
            self._reply(False if failure is not None else verdict)
        if failure is not None:
            raise failure
        if not answer.success:
            raise CriuError(answer.cr_errmsg.strip() or "CRIU gave no message", answer.cr_errno)
        return answer

    def _reply(self, verdict: Any) -> None:
        reply = self.messages.criu_req(
            type=self.messages.NOTIFY, notify_success=verdict is not False
        )
        if isinstance(verdict, self.messages.criu_opts):
            reply.opts.MergeFrom(verdict)
        try:
            self._ours.send(reply.SerializeToString())
        except OSError as error:
            raise CriuError(f"CRIU went away while it waited for us: {error}") from error

    def _receive(self) -> Any:
        try:
            data, descriptors, _flags, _address = socket.recv_fds(self._ours, _MESSAGE_MAX_BYTES, 8)
        except OSError as error:
            raise CriuError(f"the conversation with CRIU broke: {error}") from error
        for descriptor in descriptors:
            os.close(descriptor)
        if not data:
            raise CriuError("CRIU ended without an answer")
        answer = self.messages.criu_resp()
        answer.ParseFromString(data)
        return answer

    def hang_up(self) -> None:
        """Break the conversation from another thread: CRIU takes it as a no, cleans up and lets the tasks run."""
        try:
            self._ours.shutdown(socket.SHUT_RDWR)
        except OSError:
            # It is closed already: nothing is left to break.
            return

    def finish(self, timeout_s: float) -> int | None:
        """Close the conversation and wait for CRIU to end; it is never killed, see the package's docs.

        Args:
            timeout_s: How long to wait.

        Returns:
            CRIU's exit status, or None if it is still at work.
        """
        self._ours.close()
        try:
            return self._process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return None

    def ended(self) -> bool:
        """Tell whether CRIU has ended."""
        return self._process.poll() is not None
