"""What a supervisor tells of a task's life."""

from __future__ import annotations

from typing import Any

import attrs

__all__ = ["Event"]


@attrs.frozen
class Event:
    """A change of state.

    Attributes:
        name: What happened, such as ``started``, ``notice`` or ``saved``; all are in "Running a task" of the manual,
            and in what order they come.
        time_s: When, in seconds since the epoch.
        key: The supervisor's key.
        details: Numbers and names that belong to it; JSON types.
        state: The state of the task's life after it.
    """

    name: str
    time_s: float
    key: str
    details: dict[str, Any]
    state: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return it as one flat JSON object."""
        return {
            "event": self.name,
            "time_s": self.time_s,
            "key": self.key,
            "state": self.state,
            **self.details,
        }
