"""What the command takes, what it says of what it does not take, and that the manual names all of it."""

from __future__ import annotations

import argparse
import errno
import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from snaplib.cli import VERBS, _parser, main
from snaplib.cli.eventlog import EventLog
from snaplib.cli.notices import NOTICES
from snaplib.event import Event

DOCS = Path(__file__).resolve().parents[2] / "docs"


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Leave the handlers of signals as they were: some verbs obey notices from their first moment."""
    before = {number: signal.getsignal(number) for number in NOTICES}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


def options_of(verb: str) -> list[argparse.Action]:
    """Return what one verb takes."""
    parser = _parser(verb)
    (verbs,) = (one for one in parser._actions if isinstance(one, argparse._SubParsersAction))
    return list(verbs.choices[verb]._actions)


@pytest.mark.parametrize("verb", VERBS)
def test_the_manual_names_every_option(verb: str) -> None:
    """Each verb has a section of its own, with all that it takes."""
    text = (DOCS / "commands.md").read_text()
    section = re.search(rf"^## `snaplib {verb}`$(.*?)(?=^## |\Z)", text, re.DOTALL | re.MULTILINE)
    assert section, f"no section on {verb}"
    for option in options_of(verb):
        if option.dest in ("help", "verbose"):
            continue
        if option.option_strings:
            pattern = rf"`(-\w, )?{option.option_strings[-1]}[` ]"
            assert re.search(pattern, section[1]), option.option_strings
        elif option.nargs != argparse.REMAINDER:
            assert f"`{option.metavar}`" in section[1], option.metavar


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_says_what_it_does(verb: str) -> None:
    for option in options_of(verb):
        assert option.help, option
        assert option.nargs == 0 or option.metavar or option.choices or option.dest == "key", option


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("run --window 0 -- true", "argument --window: '0' is not a number of seconds, above 0"),
        ("run --window nan -- true", "above 0"),
        ("run --snapshot-every inf -- true", "above 0"),
        ("run --max-overhead -1 -- true", "'-1' is not a number of percent, 0 or more"),
        ("run --exit-saved 256 -- true", "'256' is not a whole number, 0 to 255"),
        ("run --max-attempts 0 -- true", "1 or more"),
        ("run --tcp maybe -- true", "maybe"),
        ("run --windows 3 -- true", "unrecognized arguments: --windows"),
        ("dump me", "'me' is not a whole number, 1 or more"),
        ("dump 1 --window -3", "above 0"),
        ("forecast 1 --bandwidth 0", "above 0"),
        ("watch 1 --interval 0", "above 0"),
        ("prune --keep -1", "0 or more"),
        ("report --price -1", "0 or more"),
        ("fly", "invalid choice: 'fly'"),
    ],
)
def test_what_cannot_be_meant(
    arguments: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line, with what is wrong and where to look."""
    with pytest.raises(SystemExit) as stopped:
        main(arguments.split())
    assert stopped.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("snaplib: error: ")
    assert says in line
    assert re.search(r" - see `snaplib( \w+)? --help`$", line)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("restore 2026 --json", "add --detach"),
        ("restore 2026 --detach --window 3", "--window is of no use with --detach"),
        ("restore 2026 --detach --snapshot-every 3", "--snapshot-every is of no use"),
        ("run", "no command to run"),
        ("notice a --all", "not both possible"),
        ("prune --store /nowhere", "nothing says what may go"),
    ],
)
def test_what_does_not_go_together(
    arguments: str, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments.split()) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert says in line


def test_without_a_verb_all_are_told(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    told = capsys.readouterr().err
    assert all(verb in told for verb in VERBS)


def test_an_error_that_nobody_has_foreseen(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A line, and no traceback unless it is asked for."""

    def fail(*_arguments: object) -> int:
        raise OSError(errno.EIO, "Input/output error", "/somewhere")

    monkeypatch.setattr("snaplib.cli.doctor.run", fail)
    for verbose in ([], ["-v"]):
        assert main(["doctor", *verbose]) == 1
        told = capsys.readouterr().err
        assert "Input/output error: '/somewhere'" in told.splitlines()[-1]
        assert ("Traceback" in told) == bool(verbose)


def test_events_on_a_full_disk_do_not_cost_the_task(capsys: pytest.CaptureFixture[str]) -> None:
    """It is said once, and the run goes on."""
    with EventLog("/dev/full", quiet=True) as log:
        for _ in range(3):
            log(Event("obstacle_that_nobody_knows", 0.0, "k", {}))
    (line,) = capsys.readouterr().err.splitlines()
    assert "events cannot be written to /dev/full: No space left on device" in line


def test_an_obstacle_of_many_processes_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    words = ("severity", "code", "comm", "subject", "message", "remedy")
    details = {word: word for word in words}
    with EventLog(None, quiet=False) as log:
        for pid in (1, 2, 3):
            log(Event("obstacle", 0.0, "k", {**details, "pid": pid}))
        log(Event("obstacle", 0.0, "k", {**details, "pid": 3, "message": "another"}))
    assert [line.count("pid 1") for line in capsys.readouterr().err.splitlines()] == [1, 0]


def test_events_are_lines(tmp_path: Path) -> None:
    path = tmp_path / "events"
    with EventLog(str(path), quiet=True) as log:
        for number in range(3):
            log(Event("copied", 1.5, "k\udcff", {"number": number}, "running"))
    told = [json.loads(line) for line in path.read_text().splitlines()]
    assert [one["number"] for one in told] == [0, 1, 2]
    assert told[0]["event"] == "copied"
