"""What callers pass, looked at before anything is done with it: each mistake is told by the argument's name."""

from __future__ import annotations

import math
import operator
import os
import reprlib
from collections.abc import Collection, Iterable
from typing import Any

from snaplib.errors import UsageError, WrongType

__all__ = [
    "command_words",
    "functions",
    "has",
    "milliseconds",
    "number",
    "one_of",
    "path",
    "patterns",
    "shown",
    "snapshot_store",
    "task_of",
    "text",
    "whole",
]

#: poll(2) takes an int: what is longer is for ever.
_LONGEST_MS = 2**31 - 1


def number(name: str, value: Any, *, least: float | None = None, finite: bool = False) -> float:
    """Return the number that an argument is.

    Args:
        name: The argument.
        value: What was passed.
        least: It is not below this.
        finite: Whether it has to be finite.

    Raises:
        WrongType: It is no number.
        UsageError: It is not a number, below the least, or infinite.
    """
    if not hasattr(type(value), "__float__"):
        raise WrongType(f"{name} is {shown(value)}, and must be a number")
    found = float(value)
    if math.isnan(found) or (finite and math.isinf(found)):
        raise UsageError(f"{name} is {found}, and must be a number")
    if least is not None and found < least:
        raise UsageError(f"{name} is {found:g}, and must be {least:g} or more")
    return found


def whole(name: str, value: Any, *, least: int | None = None, most: int | None = None) -> int:
    """Return the whole number that an argument is.

    Raises:
        WrongType: It is none.
        UsageError: It is out of bounds.
    """
    try:
        found = operator.index(value)
    except TypeError:
        raise WrongType(f"{name} is {shown(value)}, and must be a whole number") from None
    if (least is not None and found < least) or (most is not None and found > most):
        bounds = f"{least} or more" if most is None else f"from {least} to {most}"
        raise UsageError(f"{name} is {found}, and must be {bounds}")
    return found


def milliseconds(timeout_s: float | None) -> int | None:
    """Return what poll(2) takes for a timeout: at least 0, and None for ever.

    Raises:
        UsageError: It is not a number.
    """
    if timeout_s is None:
        return None
    wanted_ms = max(0.0, number("timeout_s", timeout_s) * 1000)
    return None if wanted_ms > _LONGEST_MS else math.ceil(wanted_ms)


def text(name: str, value: Any) -> str:
    """Return the text that an argument is.

    Raises:
        WrongType: It is something else.
        UsageError: It is empty.
    """
    if not isinstance(value, str):
        raise WrongType(f"{name} is {shown(value)}, and must be text")
    if not value:
        raise UsageError(f"{name} is empty", hint="give it a value, or leave it out")
    return value


def path(name: str, value: Any) -> str:
    """Return the path that an argument is, given as text, bytes or a path.

    Raises:
        WrongType: It is something else.
    """
    if not _is_path(value):
        raise WrongType(f"{name} is {shown(value)}, and must be a path")
    return os.fsdecode(value)


def one_of(name: str, value: Any, known: Iterable[Any]) -> None:
    """Make sure that an argument is one of those that mean something.

    Raises:
        UsageError: It is not.
    """
    known = tuple(known)
    if value not in known:
        raise UsageError(f"{name}={shown(value)} is not one of {', '.join(map(str, known))}")


def functions(**named: Any) -> None:
    """Make sure that arguments can be called, or are None.

    Raises:
        WrongType: One cannot.
    """
    for name, value in named.items():
        if value is not None and not callable(value):
            raise WrongType(f"{name} is {shown(value)}, and must be a function")


def patterns(name: str, value: Any) -> Collection[str]:
    """Return the texts that an argument is a collection of; one text is not taken for its letters.

    Raises:
        WrongType: It is something else.
        UsageError: One is empty.
    """
    if isinstance(value, (str, bytes)) or not isinstance(value, Iterable):
        raise WrongType(f"{name} is {shown(value)}, and must be a list", hint=f"write {name}=[…]")
    return tuple(text(name, os.fsdecode(one) if _is_path(one) else one) for one in value)


def command_words(command: Any) -> tuple[str, ...]:
    """Return the words of a command; paths and bytes may be among them.

    Raises:
        WrongType: It is one text, or one of its words is none.
        UsageError: A word cannot be passed to a program.
    """
    if isinstance(command, (str, bytes, os.PathLike)) or not isinstance(command, Iterable):
        raise WrongType(
            f"the command is {shown(command)}, and must be a list: the program and its arguments",
            hint='write ["sh", "-c", …] to have a shell take it apart',
        )
    words = []
    for word in command:
        if not _is_path(word):
            raise WrongType(f"the command has {shown(word)} in it, which is no text")
        words.append(os.fsdecode(word))
        if "\0" in words[-1]:
            raise UsageError(
                f"the command has a NUL in {shown(words[-1])}, which no program can be passed"
            )
    return tuple(words)


def has(name: str, value: Any, attribute: str, kind: str) -> None:
    """Make sure that an argument is None or of a kind, by an attribute of that.

    Raises:
        WrongType: It is something else.
    """
    if value is not None and not hasattr(value, attribute):
        raise WrongType(f"{name} is {shown(value)}, and must be a snaplib.{kind}")


def task_of(value: Any) -> None:
    """Make sure that an argument is a task.

    Raises:
        WrongType: It is something else.
    """
    if not (hasattr(value, "pid") and (hasattr(value, "session") or hasattr(value, "members"))):
        raise WrongType(
            f"task is {shown(value)}, and must be a snaplib.Task",
            hint="attach to it: snaplib.Task.attach(pid)",
        )


def snapshot_store(value: Any) -> None:
    """Make sure that an argument is a store.

    Raises:
        WrongType: It is something else.
    """
    if not (hasattr(value, "begin") and hasattr(value, "backend")):
        raise WrongType(
            f"store is {shown(value)}, and must be a snaplib.Store",
            hint="open it: snaplib.Store.open(address)",
        )


def shown(value: Any) -> str:
    """Return a value for an error: in one line that is not too long."""
    return reprlib.repr(value).replace("\n", " ")


def _is_path(value: Any) -> bool:
    return isinstance(value, (str, bytes, os.PathLike))
