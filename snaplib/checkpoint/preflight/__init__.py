"""What would make a dump or a restore of a task fail, found before it is tried."""

from __future__ import annotations

from snaplib.checkpoint.preflight.checks import preflight
from snaplib.checkpoint.preflight.obstacle import SEVERITIES, Obstacle, Severity

__all__ = ["SEVERITIES", "Obstacle", "Severity", "preflight"]
