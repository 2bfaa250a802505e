"""Options that several commands share."""

from __future__ import annotations

import argparse
import math
import os
from collections.abc import Callable
from typing import Any, Protocol

__all__ = [
    "Arguments",
    "above_zero",
    "add_arm",
    "add_bandwidth",
    "add_files",
    "add_json",
    "add_store",
    "add_task",
    "add_window",
    "default_store",
    "whole",
    "zero_or_more",
]


def above_zero(unit: str) -> Callable[[str], float]:
    """Return what reads a finite number above 0, for ``type`` of an argument.

    Args:
        unit: What is counted, for the error.
    """
    return lambda text: _number(text, unit, zero=False)


def zero_or_more(unit: str) -> Callable[[str], float]:
    """Return what reads a finite number that is not negative, for ``type`` of an argument.

    Args:
        unit: What is counted, for the error.
    """
    return lambda text: _number(text, unit, zero=True)


def _number(text: str, unit: str, *, zero: bool) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not (value >= 0 if zero else value > 0) or math.isinf(value):
        bound = "0 or more" if zero else "above 0"
        raise argparse.ArgumentTypeError(f"{text!r} is not a number of {unit}, {bound}")
    return value


def whole(least: int, most: int | None = None) -> Callable[[str], int]:
    """Return what reads a whole number within bounds, for ``type`` of an argument."""

    def read(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = least - 1
        if value < least or (most is not None and value > most):
            bounds = f"{least} or more" if most is None else f"{least} to {most}"
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number, {bounds}")
        return value

    return read


def add_task(parser: argparse.ArgumentParser) -> None:
    """Add the pid of a task."""
    parser.add_argument(
        "pid",
        type=whole(1),
        metavar="PID",
        help="the task: a process, with all its descendants",
    )


def default_store() -> str:
    """Return the store used when none is named: ``$SNAPLIB_STORE``, else ``.snaplib`` in the working directory."""
    return os.environ.get("SNAPLIB_STORE", ".snaplib")


def add_store(parser: argparse.ArgumentParser) -> None:
    """Add ``--store``."""
    parser.add_argument(
        "--store",
        metavar="URL",
        default=default_store(),
        help="where snapshots are kept: a folder, or s3://, gs:// or az:// with bucket and folder "
        "(default: $SNAPLIB_STORE, else .snaplib/)",
    )
    parser.add_argument(
        "--encryption-key",
        metavar="SOURCE",
        help="where the key of an encrypted store is: file:PATH, env:NAME or command:COMMAND "
        "(default: what $SNAPLIB_ENCRYPTION_KEY says)",
    )


class Arguments(Protocol):
    """Where arguments are added: a parser, or a group of one."""

    def add_argument(self, *names: str, **what: Any) -> Any:
        """Add one."""
        ...


def add_files(parser: Arguments) -> None:
    """Add ``--files`` and ``--capture``."""
    parser.add_argument(
        "--files",
        choices=("capture", "reference"),
        help="whether the contents of the files that the task writes go with its snapshots "
        "(default: capture where the store is not on this machine, else reference)",
    )
    parser.add_argument(
        "--capture",
        action="append",
        default=[],
        metavar="GLOB",
        help="files whose contents go with the snapshots too, whether the task has them open or not; ** stands for any "
        "folders; may be given several times",
    )


def add_json(parser: argparse.ArgumentParser) -> None:
    """Add ``--json``."""
    parser.add_argument("--json", action="store_true", help="print one JSON object on stdout")


def add_arm(parser: argparse.ArgumentParser) -> None:
    """Add ``--arm``."""
    parser.add_argument(
        "--arm",
        choices=("all", "sample", "none"),
        default="sample",
        help="which writes to memory to see: all, those to a sample of an eighth of it (default), or none, and first "
        "touches only",
    )


def add_window(parser: argparse.ArgumentParser) -> None:
    """Add ``--window`` of what is only supposed."""
    parser.add_argument(
        "--window",
        type=above_zero("seconds"),
        default=120.0,
        metavar="SECONDS",
        help="from the notice to the end of the machine (default: 120)",
    )


def add_bandwidth(parser: argparse.ArgumentParser) -> None:
    """Add ``--bandwidth``."""
    parser.add_argument(
        "--bandwidth",
        type=above_zero("10^6 bytes a second"),
        metavar="MB/S",
        help="suppose this of the way to the store, in 10^6 bytes a second, instead of what was measured",
    )
