"""Profiles as bytes: a JSON head for what is small, and arrays as they are.

Nothing in it is executed when it is read. Fields that a newer version adds are passed over, fields that
an older one lacked get their defaults.
"""

from __future__ import annotations

import json
import struct
from typing import Any

import attrs
import numpy as np

from snaplib.observe.ages import PageAges
from snaplib.observe.descriptors import DESCRIPTOR_DTYPE, DescriptorTable
from snaplib.observe.memory import Memory
from snaplib.observe.profile import (
    FaultCounts,
    Losses,
    Member,
    Profile,
    TreeCounts,
    TreeEvent,
)
from snaplib.observe.sockets import SOCKET_DTYPE, SocketTable

__all__ = ["decode", "encode"]

_HEAD = struct.Struct("<I")

#: Fields of a profile that are kept as arrays behind the head, in this order.
_ARRAYS = (
    ("since", np.dtype("<f8")),
    ("distinct", np.dtype("<f8")),
    ("descriptors", DESCRIPTOR_DTYPE),
    ("sockets", SOCKET_DTYPE),
)


def encode(profile: Profile) -> bytes:
    """Return a profile as bytes."""
    # What each age class has changes little from one profile to the next, the sums over them all the time.
    ages = profile.page_ages
    classes = np.diff(ages.distinct_bytes, prepend=0.0)
    as_classes = np.array_equal(np.cumsum(classes), ages.distinct_bytes)
    arrays = (
        ages.since_s,
        classes if as_classes else ages.distinct_bytes,
        profile.descriptors.array,
        profile.sockets.array,
    )
    head: dict[str, Any] = {}
    for field in attrs.fields(Profile):
        if field.name not in ("page_ages", "descriptors", "sockets"):
            value = getattr(profile, field.name)
            head[field.name] = attrs.asdict(value) if attrs.has(type(value)) else value
    head["members"] = [attrs.asdict(one) for one in profile.members]
    head["events"] = [attrs.asdict(one) for one in profile.events]
    head["paths"] = profile.descriptors.paths
    head["ages"] = {"at_s": ages.at_s, "classes": as_classes}
    head["arrays"] = [len(one) for one in arrays]
    text = json.dumps(head, separators=(",", ":")).encode("utf-8", "surrogatepass")
    return b"".join(
        (_HEAD.pack(len(text)), text, *(np.ascontiguousarray(one).tobytes() for one in arrays))
    )


def decode(data: bytes) -> Profile:
    """Return the profile that `encode` made bytes of.

    Raises:
        ValueError: They are something else, or damaged.
    """
    try:
        (length,) = _HEAD.unpack_from(data)
        head = json.loads(data[_HEAD.size : _HEAD.size + length])
        position = _HEAD.size + length
        arrays = {}
        for (name, dtype), count in zip(_ARRAYS, head.pop("arrays"), strict=True):
            arrays[name] = np.frombuffer(data, dtype, count, position)
            position += count * dtype.itemsize
        paths = tuple(head.pop("paths"))
        values = _known(Profile, head)
        values["notes"] = tuple(values.get("notes", ()))
        values["members"] = tuple(
            Member(**{**known, "faults": FaultCounts(**_known(FaultCounts, known["faults"]))})
            for known in (_known(Member, one) for one in head["members"])
        )
        values["events"] = tuple(TreeEvent(**_known(TreeEvent, one)) for one in head["events"])
        values["memory"] = Memory(**_known(Memory, head["memory"]))
        values["faults"] = FaultCounts(**_known(FaultCounts, head["faults"]))
        counts = _known(TreeCounts, head["counts"])
        counts["tcp_changes"] = tuple((state, count) for state, count in counts["tcp_changes"])
        values["counts"] = TreeCounts(**counts)
        values["losses"] = Losses(**_known(Losses, head["losses"]))
        distinct = arrays["distinct"]
        if head["ages"]["classes"]:
            distinct = np.cumsum(distinct)
        return Profile(
            **values,
            page_ages=PageAges(head["ages"]["at_s"], arrays["since"], distinct),
            descriptors=DescriptorTable(arrays["descriptors"], paths),
            sockets=SocketTable(arrays["sockets"]),
        )
    except (AttributeError, KeyError, TypeError, struct.error) as error:
        raise ValueError(f"not a profile: {error!r}") from None


def _known(record: type, values: dict[str, Any]) -> dict[str, Any]:
    """Return those of some values that this version of a record has."""
    names = {field.name for field in attrs.fields(record)}
    return {name: value for name, value in values.items() if name in names}
