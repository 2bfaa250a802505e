"""What programs rely on that call snaplib: names, arguments, attributes, statuses.  A change here breaks them."""

from __future__ import annotations

import argparse
import inspect
import io
import os
import pydoc

import attrs
import pytest

import snaplib
from snaplib import errors
from snaplib.cli import VERBS, _parser

#: Command -> options that every version has.
COMMANDS = {
    "doctor": "--json",
    "run": "--store --key --window --events --reclaim --tcp --files --max-overhead --exit-saved --on-restore-failure",
    "watch": "PID --json --record",
    "forecast": "PID --json --store --window",
    "preflight": "PID --json",
    "dump": "PID --json --store --key --window --events --leave-running --skip-preflight",
    "restore": "--json --store --key --window --events --lazy --detach",
    "snapshots": "--json --store --key",
    "show": "ID --json --store",
    "verify": "--json --store",
    "prune": "--json --store --key --keep --older-than",
    "calibrate": "--json --store",
    "replay": "TRACE --json --store --window",
    "report": "--json --store --key",
}

#: Function -> arguments that every version has.
FUNCTIONS = {
    "Host.probe": "",
    "Store.open": "url",
    "Task.launch": "command stdin stdout stderr cwd env",
    "Task.attach": "pid",
    "Task.wait": "self timeout_s",
    "Watch": "task interval_s",
    "Watch.profile": "self",
    "forecast": "profile host store window_s",
    "plan": "forecast",
    "preflight": "task",
    "dump": "task store key leave_running deadline_s plan watch progress",
    "restore": "store snapshot_id lazy deadline_s progress",
    "Supervisor": "command store key on_event",
    "Supervisor.run": "self",
    "Supervisor.notice": "self window_s",
    "Trace": "path",
    "WarmCopy": "task store",
}

#: Record -> fields and properties that every version has.
RECORDS = {
    "Forecast": "best strategies window_s",
    "Interval": "low median high",
    "Plan": "strategy reasons next_copy_s",
    "Snapshot": "id key raw_bytes stored_bytes pages timings",
    "Obstacle": "severity subject message remedy fatal pid",
    "Profile": "memory descriptors sockets members dirty_rate_bytes_s resident_bytes dumpable_bytes",
    "Host": "features criu bpf tracking",
    "Event": "name time_s key details state",
}

STATUSES = {
    "UsageError": 2,
    "NoSuchTask": 2,
    "KeyBusy": 2,
    "StoreError": 2,
    "CommandNotExecutable": 126,
    "CommandNotFound": 127,
    "DumpFailed": 175,
    "DeadlineExceeded": 175,
    "RestoreFailed": 176,
    "SnapshotDamaged": 176,
    "CannotDump": 177,
    "HostUnfit": 177,
    "TooManyAttempts": 178,
}


def named(path: str) -> object:
    found: object = snaplib
    for part in path.split("."):
        found = getattr(found, part)
    return found


@pytest.mark.parametrize("verb", COMMANDS)
def test_commands(verb: str) -> None:
    (verbs,) = (
        one for one in _parser(verb)._actions if isinstance(one, argparse._SubParsersAction)
    )
    known = {
        name
        for action in verbs.choices[verb]._actions
        for name in (*action.option_strings, str(action.metavar))
    }
    assert set(COMMANDS[verb].split()) - known == set()
    assert {"-h", "--help", "-v"} <= known
    assert verb in VERBS


@pytest.mark.parametrize("path", FUNCTIONS)
def test_functions(path: str) -> None:
    found = named(path)
    assert callable(found)
    parameters = inspect.signature(found).parameters
    assert set(FUNCTIONS[path].split()) - set(parameters) == set()


@pytest.mark.parametrize("name", RECORDS)
def test_records(name: str) -> None:
    found = named(name)
    assert isinstance(found, type)
    fields = {field.name for field in attrs.fields(found)} | set(dir(found))
    assert set(RECORDS[name].split()) - fields == set()
    with pytest.raises(attrs.exceptions.FrozenInstanceError):
        found.__new__(found).anything = 1  # type: ignore[attr-defined]


def test_statuses() -> None:
    assert {name: getattr(errors, name).exit_code for name in STATUSES} == STATUSES
    assert errors.EXIT_SAVED == 75 == os.EX_TEMPFAIL
    every = [getattr(errors, name) for name in errors.__all__ if name[0:4] != "EXIT"]
    assert all(issubclass(one, errors.SnaplibError) for one in every)


@pytest.mark.parametrize("name", [one for one in snaplib.__all__ if one != "__version__"])
def test_everything_public_says_what_it_does(name: str) -> None:
    """With arguments, attributes and errors where there are any; `help(snaplib)` shows it."""
    found = named(name)
    text = inspect.getdoc(found)
    assert text
    if inspect.isfunction(found):
        assert "Args:" in text
        assert "Raises:" in text
        for parameter in inspect.signature(found).parameters:
            assert f"{parameter}: " in text, parameter
    if inspect.isclass(found):
        for method_name, method in vars(found).items():
            if not method_name.startswith("_") and (
                callable(method) or isinstance(method, property | classmethod)
            ):
                assert inspect.getdoc(getattr(found, method_name)), method_name


def test_help() -> None:
    told = io.StringIO()
    pydoc.Helper(output=told).help(snaplib)
    for name in ("class Task", "class Supervisor", "dump(", "restore(", "preflight("):
        assert name in told.getvalue()
