"""What the commands print: data on stdout, messages on stderr."""

from __future__ import annotations

import json
import sys
import termios
from collections.abc import Mapping, Sequence

__all__ = ["emit_json", "human_bytes", "human_seconds", "message", "table"]


def emit_json(data: Mapping[str, object]) -> None:
    """Print one JSON object on stdout."""
    print(json.dumps(data, indent=2, sort_keys=False), flush=True)


def message(text: str) -> None:
    """Print one line on stderr, led by the program's name."""
    if sys.stderr is None:
        # Whoever read it went away.
        return
    # A terminal in raw mode, as while a task has it, does not return its cursor by itself.
    end = "\r\n" if _raw_terminal() else "\n"
    print(f"snaplib: {text}", file=sys.stderr, end=end, flush=True)


def _raw_terminal() -> bool:
    try:
        output_flags: int = termios.tcgetattr(sys.stderr.fileno())[1]
    except (OSError, ValueError, termios.error):
        return False
    return not output_flags & termios.OPOST


def human_bytes(count: float) -> str:
    """Return a byte count for people: ``1.5 GiB``."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if abs(count) < 1024 or unit == "GiB":
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    raise AssertionError


def human_seconds(seconds: float) -> str:
    """Return a duration for people: ``230 ms``, ``1.25 s``, ``3 min 20 s``."""
    # Rounded first: what is about to become the next unit is told in that.
    if round(seconds * 1000) < 1000:
        return f"{seconds * 1000:.0f} ms"
    if round(seconds, 2) < 60:
        return f"{seconds:.2f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Return rows in aligned columns under a header line, without colour."""
    everything = [list(header), *[list(row) for row in rows]]
    widths = [max(len(row[column]) for row in everything) for column in range(len(header))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in everything
    ]
    return "\n".join(lines)
