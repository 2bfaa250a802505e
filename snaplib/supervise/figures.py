"""The figures of a snapshot that an event tells: what was forecast, and what came of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from snaplib.store import Snapshot

__all__ = ["snapshot_figures"]


def snapshot_figures(snapshot: Snapshot) -> dict[str, Any]:
    """Return them, by the names that they have in an event.

    Args:
        snapshot: The snapshot.
    """
    return {
        "snapshot": snapshot.id,
        "memory_bytes": snapshot.raw_bytes,
        "stored_bytes": snapshot.stored_bytes,
        "frozen_s": snapshot.timings["frozen_s"],
        # None where nothing was copied ahead.
        "final_bytes": snapshot.extra.get("warm", {}).get("final_bytes"),
        "full_because": snapshot.extra.get("full_because"),
        # What was expected of the dump; None where nothing had been looked at before.
        "forecast_s": _median(snapshot, "duration_s"),
        "forecast_bytes": _median(snapshot, "size_bytes"),
    }


def _median(snapshot: Snapshot, name: str) -> float | None:
    found = (snapshot.extra.get("forecast") or {}).get(name)
    return None if found is None else float(found["median"])
