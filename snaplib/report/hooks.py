"""Events for loggers that are not ours, imported only when they are asked for."""

from __future__ import annotations

from collections.abc import Callable

from snaplib.errors import UsageError
from snaplib.event import Event

__all__ = ["structlog_events"]


def structlog_events(name: str = "snaplib") -> Callable[[Event], None]:
    """Return what logs events with structlog, for `Supervisor`'s ``on_event``.

    Args:
        name: The logger's name.

    Raises:
        UsageError: structlog is not installed.
    """
    try:
        import structlog  # noqa: PLC0415
    except ImportError as error:
        raise UsageError("structlog is not installed", hint="pip install structlog") from error
    logger = structlog.get_logger(name)

    def log(event: Event) -> None:
        level = logger.warning if event.name.endswith("failed") else logger.info
        details = {**event.details, "key": event.key, "state": event.state}
        details.pop("event", None)
        level(event.name, **details)

    return log
