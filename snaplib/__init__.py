"""Save a running Linux task before its machine is taken away, and restore it on another."""

from __future__ import annotations

from typing import TYPE_CHECKING

from snaplib import errors
from snaplib.late import late

if TYPE_CHECKING:
    from snaplib.checkpoint import dump, restore
    from snaplib.checkpoint.preflight import Obstacle, preflight
    from snaplib.event import Event
    from snaplib.forecasting import Forecast, Interval
    from snaplib.history import forecast
    from snaplib.host import Host
    from snaplib.observe import Profile, Trace, Watch
    from snaplib.planning import Plan, plan
    from snaplib.store import Snapshot, Store
    from snaplib.supervise import Supervisor
    from snaplib.task import Member, Task
    from snaplib.warm import WarmCopy

__all__ = [
    "Event",
    "Forecast",
    "Host",
    "Interval",
    "Member",
    "Obstacle",
    "Plan",
    "Profile",
    "Snapshot",
    "Store",
    "Supervisor",
    "Task",
    "Trace",
    "WarmCopy",
    "Watch",
    "__version__",
    "dump",
    "errors",
    "forecast",
    "plan",
    "preflight",
    "restore",
]

__version__ = "0.1.0"

__getattr__, __dir__ = late(
    __name__,
    {
        "Event": "snaplib.event",
        "Forecast": "snaplib.forecasting",
        "Host": "snaplib.host",
        "Interval": "snaplib.forecasting",
        "Member": "snaplib.task",
        "Obstacle": "snaplib.checkpoint.preflight",
        "Plan": "snaplib.planning",
        "Profile": "snaplib.observe",
        "Snapshot": "snaplib.store",
        "Store": "snaplib.store",
        "Supervisor": "snaplib.supervise",
        "Task": "snaplib.task",
        "Trace": "snaplib.observe",
        "WarmCopy": "snaplib.warm",
        "Watch": "snaplib.observe",
        "dump": "snaplib.checkpoint",
        "forecast": "snaplib.history",
        "plan": "snaplib.planning",
        "preflight": "snaplib.checkpoint.preflight",
        "restore": "snaplib.checkpoint",
    },
)
