"""A task in its own PID namespace, and its standard streams: exactly once, across dump and restore."""

from __future__ import annotations

from snaplib.session.record import (
    Backlog,
    CaptureSource,
    ExitStatus,
    OuterRecord,
    StreamRecord,
    StreamsRecord,
)
from snaplib.session.registry import SessionRecord
from snaplib.session.session import Session
from snaplib.session.terminal import RawTerminal

__all__ = [
    "Backlog",
    "CaptureSource",
    "ExitStatus",
    "OuterRecord",
    "RawTerminal",
    "Session",
    "SessionRecord",
    "StreamRecord",
    "StreamsRecord",
]
