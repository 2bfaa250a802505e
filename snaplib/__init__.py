"""Save a running Linux task before its machine is taken away, and restore it on another."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from snaplib import errors
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

#: Public name -> the module it comes from: each is imported when it is first asked for, because
#: start-up time counts when a machine has seconds left.
_HOMES = {
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
}


def __getattr__(name: str) -> Any:
    if name == "errors":
        return importlib.import_module("snaplib.errors")
    if name in _HOMES:
        found = getattr(importlib.import_module(_HOMES[name]), name)
        globals()[name] = found
        return found
    raise AttributeError(f"module 'snaplib' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
