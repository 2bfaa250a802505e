"""Schedulers: they send signals, and what is asked here is how long after one the task lasts.

Slurm also says when the job's time is over, so that it is saved before that without any signal.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from snaplib.reclaim.notice import Notice
from snaplib.reclaim.source import Report

__all__ = ["HtCondor", "Kubernetes", "Slurm"]

#: A pod that says nothing else is killed this long after SIGTERM.
_KUBERNETES_GRACE_S = 30.0
#: What the kubelet takes to be sure, and our own exit.
_KUBERNETES_MARGIN_S = 1.0
#: condor_config's default of MAX_VACATE_TIME is 10 min; jobs rarely get it.
_CONDOR_VACATE_S = 120.0
_SLURM_WINDOW_S = 120.0


class _OnlySignals:
    """A scheduler that gives notice by signals alone."""

    name: str
    window_s: float

    def watch(self, report: Report, stop: threading.Event) -> None:
        """Nothing is to be watched."""

    def acknowledge(self) -> None:
        """It sees that we have ended."""


class Kubernetes(_OnlySignals):
    """SIGTERM, and ``terminationGracePeriodSeconds`` until SIGKILL.

    The downward API does not tell that number, so the pod's manifest repeats it in ``$SNAPLIB_GRACE_PERIOD_S``.

    Args:
        environment: Where it is looked up.
    """

    name = "kubernetes"

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        told = (os.environ if environment is None else environment).get("SNAPLIB_GRACE_PERIOD_S")
        grace_s = _number(told) or _KUBERNETES_GRACE_S
        self.window_s = max(1.0, grace_s - _KUBERNETES_MARGIN_S)


class HtCondor(_OnlySignals):
    """SIGTERM, and the job's ``job_max_vacate_time`` until SIGKILL, as its ad says.

    Args:
        environment: Names the file with the ad.
    """

    name = "htcondor"

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        path = (os.environ if environment is None else environment).get("_CONDOR_JOB_AD")
        self.window_s = _vacate_s(path) or _CONDOR_VACATE_S


class Slurm:
    """Signals as ``--signal`` says, and the end of the job's time, which Slurm puts in its environment.

    Args:
        environment: Has ``SLURM_JOB_END_TIME``, in seconds since the epoch.
        window_s: How long before that end to give notice.
        now: Tells the time of day in seconds since the epoch.
    """

    name = "slurm"

    def __init__(
        self,
        environment: Mapping[str, str] | None = None,
        *,
        window_s: float = _SLURM_WINDOW_S,
        now: Callable[[], float] = time.time,
    ) -> None:
        told = (os.environ if environment is None else environment).get("SLURM_JOB_END_TIME")
        self.window_s = window_s
        self.end_s = _number(told)
        self._now = now

    def watch(self, report: Report, stop: threading.Event) -> None:
        """Wait for the end of the job's time, less the window."""
        if self.end_s is None:
            return
        while not stop.is_set():
            left_s = self.end_s - self._now()
            if left_s <= self.window_s:
                report(Notice(self.name, max(0.0, left_s), detail="the job's time is over"))
                return
            # The clock may be set meanwhile: do not sleep through hours of it.
            stop.wait(min(left_s - self.window_s, 60.0))

    def acknowledge(self) -> None:
        """It sees that we have ended."""


def _number(text: str | None) -> float | None:
    try:
        return float(text) if text else None
    except ValueError:
        return None


def _vacate_s(path: str | None) -> float | None:
    if not path:
        return None
    try:
        ad = Path(path).read_text(errors="replace")
    except OSError:
        return None
    found = re.search(r"^JobMaxVacateTime\s*=\s*(\d+)", ad, re.MULTILINE | re.IGNORECASE)
    return float(found[1]) if found else None
