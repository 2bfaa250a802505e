"""Trying a thing in a child process, which may change its namespaces and crash."""

from __future__ import annotations

import json
import os
import select
import signal
import traceback
from typing import TYPE_CHECKING

import attrs

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Failed", "Trial", "in_child"]

_DEADLINE_S = 5.0


class Failed(Exception):
    """The thing that was tried does not work; the message says why."""


@attrs.frozen
class Trial:
    """Something to try.

    Attributes:
        name: Of the feature, in snake case.
        attempt: Tries it and returns what it found; raises `Failed` or ``OSError``.
        remedy: What to do when it fails.
        needed: Whether no task can be dumped and restored without it.
    """

    name: str
    attempt: Callable[[], str]
    remedy: str
    needed: bool = False

    def run(self) -> dict[str, object]:
        """Try it, and return the fields of a `Feature`."""
        try:
            detail, ok = in_child(self.attempt), True
        except (Failed, OSError) as error:
            detail = (error.strerror if isinstance(error, OSError) else None) or str(error)
            ok = False
        return {
            "ok": ok,
            "detail": detail,
            "remedy": "" if ok else self.remedy,
            "needed": self.needed,
        }


def in_child(attempt: Callable[[], str]) -> str:
    """Return what a function returns in a forked process.

    Raises:
        Failed: It raised `Failed` or ``OSError`` there, crashed, or did not end in time.
    """
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        _answer(attempt, writing)
    os.close(writing)
    content = b""
    poller = select.poll()
    poller.register(reading, select.POLLIN)
    try:
        while poller.poll(_DEADLINE_S * 1000):
            chunk = os.read(reading, 65536)
            content += chunk
            if not chunk:
                break
        else:
            raise Failed(f"no answer within {_DEADLINE_S:.0f} s")
    finally:
        os.close(reading)
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
    if not content:
        raise Failed(f"the trial died with status {os.waitstatus_to_exitcode(status)}")
    ok, detail = json.loads(content)
    if not ok:
        raise Failed(detail)
    return str(detail)


def _answer(attempt: Callable[[], str], writing: int) -> None:
    """Try, tell, and end without running what the parent has registered for its end."""
    try:
        outcome = (True, attempt())
    except Failed as error:
        outcome = (False, str(error))
    except OSError as error:
        outcome = (False, error.strerror or str(error))
    except BaseException:  # noqa: BLE001 - told to the parent, which tells it on
        outcome = (False, traceback.format_exc().strip().splitlines()[-1])
    os.write(writing, json.dumps(outcome).encode())
    os._exit(0)
