"""Bytes a second as people write them: ``20MB``, ``1.5 GiB/s``."""

from __future__ import annotations

import re

from snaplib.errors import UsageError

__all__ = ["bytes_per_s"]

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "ki": 1 << 10, "mi": 1 << 20, "gi": 1 << 30}
_RATE = re.compile(r"(?P<number>\d+(?:\.\d+)?)\s*(?P<unit>[KMG]i?)?(?:B(?:/s)?)?", re.IGNORECASE)


def bytes_per_s(text: str, what: str) -> float:
    """Return the number that a text means.

    Args:
        text: A number, perhaps with a unit.
        what: What it is, with its article, for the error.

    Raises:
        UsageError: It means none, or 0.
    """
    found = _RATE.fullmatch(text.strip())
    value = float(found["number"]) * _UNITS[(found["unit"] or "").lower()] if found else 0.0
    if value <= 0:
        raise UsageError(
            f"{what} of {text!r} cannot be meant", hint="write bytes a second, such as 20MB"
        )
    return value
