"""Bytes a second as people write them."""

from __future__ import annotations

import pytest

from snaplib.errors import UsageError
from snaplib.store.rates import bytes_per_s


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("1", 1),
        ("20MB", 20e6),
        ("1.5 GiB/s", 1.5 * (1 << 30)),
        ("64k", 64e3),
        (" 2mb/s ", 2e6),
        ("3KiB", 3 << 10),
    ],
)
def test_what_is_meant(text: str, number: float) -> None:
    assert bytes_per_s(text, "a rate") == number


@pytest.mark.parametrize("text", ["", "0", "-1", "fast", "2 MB/h", "1e6", "MB", "nan", "1..5"])
def test_what_cannot_be_meant(text: str) -> None:
    with pytest.raises(UsageError, match=r"a rate of .* cannot be meant"):
        bytes_per_s(text, "a rate")
