"""Runs the trials in a process of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import snaplib
from snaplib.kernel.probe.feature import Feature

__all__ = ["probe_kernel"]

#: All trials take some 0.2 s together; each has its own deadline inside.
_DEADLINE_S = 120.0


def probe_kernel() -> dict[str, Feature]:
    """Try everything that concerns the kernel.

    Returns:
        Name -> outcome, in the order of the trials.
    """
    environment = dict(os.environ)
    # The same snaplib that asks, wherever it was imported from.
    here = str(Path(snaplib.__file__).parent.parent)
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, (here, environment.get("PYTHONPATH"))))
    try:
        answer = subprocess.run(
            [sys.executable, "-m", "snaplib.kernel.probe"],
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=_DEADLINE_S,
            check=True,
            # A trial may stop or kill its group.
            start_new_session=True,
        )
        outcomes = json.loads(answer.stdout)
    except (OSError, subprocess.SubprocessError, ValueError) as error:
        told = getattr(error, "stderr", None) or b""
        last = told.decode(errors="replace").strip().splitlines()[-1:]
        detail = " ".join([str(error), *last])
        return {"kernel_trials": Feature(False, detail, "report this as a bug", needed=True)}
    return {name: Feature(**fields) for name, fields in outcomes.items()}
