"""What a dump has to do, and how long each part of it took: what models learn from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal

import attrs

from snaplib.forecasting.interval import Interval

__all__ = ["DumpRecord", "Phases", "Promise", "Rates", "Work"]


def _number(value: Any) -> float:
    number = float(value)
    if not math.isfinite(number) or number < 0:
        raise ValueError(f"{value!r} is not a number of anything")
    return number


def _share(value: float | None) -> float | None:
    return None if value is None else min(_number(value), 1.0)


def _speed(value: float | None) -> float | None:
    return _number(value) or None if value is not None else None


@attrs.frozen
class Work:
    """What a dump has to do.

    Attributes:
        processes: Members of the task.
        threads: Of all of them, main threads included.
        descriptors: Of all of them.
        mappings: Of all of them.
        runs: Places that pages are sent from, neighbours being one; of a full dump not counted.
        resident_bytes: Memory whose page tables are walked.
        sent_bytes: Memory in the pages that are sent.
        ratio: What the codec leaves of a byte of it, from 0 to 1; None where nobody has looked.
        codec_bytes_s: How fast one thread compresses a sample of it with nothing beside it, by bytes before;
            None where nobody has looked.
        incremental: Whether only what changed since a warm copy is sent.
    """

    processes: float = attrs.field(default=1.0, converter=_number)
    threads: float = attrs.field(default=1.0, converter=_number)
    descriptors: float = attrs.field(default=3.0, converter=_number)
    mappings: float = attrs.field(default=0.0, converter=_number)
    runs: float = attrs.field(default=0.0, converter=_number)
    resident_bytes: float = attrs.field(default=0.0, converter=_number)
    sent_bytes: float = attrs.field(default=0.0, converter=_number)
    ratio: float | None = attrs.field(default=None, converter=_share)
    codec_bytes_s: float | None = attrs.field(default=None, converter=_speed)
    incremental: bool = False


@attrs.frozen
class Phases:
    """Seconds of a dump by phase.

    Attributes:
        start_s: Until the task is frozen: CRIU begins, looks around, stops every thread.
        walk_s: Frozen, and no page under way: CRIU reads mappings, page tables, threads, descriptors.
        memory_s: Frozen, and pages under way, through the codec to the store.
        commit_s: All pages sent; what is left is stored, made durable, and the manifest put.
    """

    start_s: float = attrs.field(default=0.0, converter=_number)
    walk_s: float = attrs.field(default=0.0, converter=_number)
    memory_s: float = attrs.field(default=0.0, converter=_number)
    commit_s: float = attrs.field(default=0.0, converter=_number)

    @property
    def total_s(self) -> float:
        """All of them."""
        return self.start_s + self.walk_s + self.memory_s + self.commit_s

    @property
    def frozen_s(self) -> float:
        """How long the task stands still, if it ends with the dump."""
        return self.walk_s + self.memory_s + self.commit_s


@attrs.frozen
class Rates:
    """How fast the parts of the way to the store were, in bytes a second; None where not measured.

    Attributes:
        codec_bytes_s: One thread that compresses, by bytes before.
        codec_threads: How many there were.
        store_bytes_s: The store, while anything was being written to it, by bytes as stored.
    """

    codec_bytes_s: float | None = None
    codec_threads: int = 1
    store_bytes_s: float | None = None


@attrs.frozen
class Promise:
    """What was forecast of a dump before it was made.

    Attributes:
        size_bytes: Of memory.
        duration_s: From the beginning until the snapshot is durable.
        fits: The probability of fitting the window.
        window_s: The window.
        codec_bytes_s: How fast one thread compressed a sample of the task's memory, by bytes before.
    """

    size_bytes: Interval
    duration_s: Interval
    fits: float
    window_s: float
    codec_bytes_s: float | None = attrs.field(default=None, converter=_speed)


@attrs.frozen
class DumpRecord:
    """A dump that was made.

    Attributes:
        time_s: When it began, in seconds since the epoch.
        host: The identity of the host.
        store: The identity of the store.
        program: What was dumped: the name of the task's first command.
        work: What it had to do; ``ratio`` as the codec found it.
        phases: How long it took.
        stored_bytes: What the store took.
        rates: How fast the way was.
        origin: ``dump``, or ``calibration`` for those made to measure this host.
        promise: What was forecast.
    """

    time_s: float = attrs.field(converter=_number)
    host: str
    store: str
    program: str
    work: Work
    phases: Phases
    stored_bytes: float = attrs.field(converter=_number)
    rates: Rates = attrs.field(factory=Rates)
    origin: Literal["dump", "calibration"] = "dump"
    promise: Promise | None = None

    def to_json(self) -> dict[str, Any]:
        """Return it as JSON has it."""
        return attrs.asdict(self)

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> DumpRecord:
        """Return the record of what `to_json` gave; fields that are not known are left out.

        Raises:
            ValueError: It is none.
        """
        try:
            promise = data.get("promise")
            return cls(
                time_s=data["time_s"],
                host=str(data["host"]),
                store=str(data["store"]),
                program=str(data["program"]),
                work=_build(Work, data["work"]),
                phases=_build(Phases, data["phases"]),
                stored_bytes=data["stored_bytes"],
                rates=_build(Rates, data.get("rates") or {}),
                origin="calibration" if data.get("origin") == "calibration" else "dump",
                promise=None
                if promise is None
                else Promise(
                    _build(Interval, promise["size_bytes"]),
                    _build(Interval, promise["duration_s"]),
                    float(promise["fits"]),
                    float(promise["window_s"]),
                    promise.get("codec_bytes_s"),
                ),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"no record of a dump: {error!r}") from error


def _build(kind: type[Any], data: Mapping[str, Any]) -> Any:
    known = {field.name for field in attrs.fields(kind)}
    return kind(**{name: value for name, value in data.items() if name in known})
