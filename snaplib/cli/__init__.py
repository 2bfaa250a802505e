"""The command: one module a verb, imported only when it is called."""

from __future__ import annotations

import argparse
import contextlib
import importlib
import os
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

from snaplib import __version__
from snaplib.cli.notices import ignore_notices, keep_notices
from snaplib.cli.output import message
from snaplib.errors import EXIT_USAGE, SnaplibError

__all__ = ["VERBS", "main", "program"]

#: Verb -> the line that `snaplib --help` shows.  The module of the same name has configure(parser) and run(args).
VERBS = {
    "doctor": "probe this host: what works here, and the remedy for what does not",
    "run": "start a command, or resume it from its snapshot; save it when notice is given",
    "notice": "tell runs of this machine that it is about to be taken away, and wait until they are saved",
    "watch": "what a task is doing, live: memory written, descriptors, sockets",
    "forecast": "how large a dump of a task will be, how long it takes, whether it fits, and the plan",
    "preflight": "what would make a dump or a restore of a task fail, each with its culprit",
    "dump": "save a task now, and end it unless it is to run on",
    "restore": "restore a snapshot in a new PID namespace",
    "snapshots": "list the snapshots in a store",
    "show": "look into one snapshot",
    "verify": "check every byte of a snapshot",
    "prune": "remove snapshots by number and age",
    "calibrate": "measure this host and the way to the store, for forecasts",
    "replay": "what each strategy would have done for a recorded task",
    "report": "what snapshots were worth: interruptions survived, work kept and lost",
}

#: Those that obey notices: they must not be ended by one while they are still being imported.
_SUPERVISING = ("run", "restore")


class _Parser(argparse.ArgumentParser):
    """Tells what is wrong in one line, as all other errors are told."""

    def error(self, message: str) -> NoReturn:
        self.exit(EXIT_USAGE, f"snaplib: error: {message} - see `{self.prog} --help`\n")


def _parser(verb: str | None) -> argparse.ArgumentParser:
    parser = _Parser(
        prog="snaplib",
        description="Save a running task before its machine is taken away, and restore it on another.",
        epilog="`snaplib COMMAND --help` tells the options of each.",
    )
    parser.add_argument("--version", action="version", version=f"snaplib {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="COMMAND", required=True)
    for name, summary in VERBS.items():
        one = verbs.add_parser(
            name, help=summary, description=f"{summary[0].upper()}{summary[1:]}."
        )
        one.add_argument(
            "-v", "--verbose", action="store_true", help="show the traceback of an error"
        )
        if name == verb:
            importlib.import_module(f"snaplib.cli.{name}").configure(one)
    return parser


def _open_standard_streams() -> None:
    """Take the numbers of standard streams that are closed: what is opened next would pass for one of them."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status.

    Args:
        argv: The arguments without the program's name; ``sys.argv`` by default.
    """
    _open_standard_streams()
    arguments = list(sys.argv[1:] if argv is None else argv)
    if not arguments:
        _parser(None).print_help(sys.stderr)
        return EXIT_USAGE
    verb = _verb(arguments)
    if verb in _SUPERVISING:
        keep_notices()
    args = _parser(verb).parse_args(arguments)
    if getattr(args, "encryption_key", None):
        # For all that opens the store, other processes too. It is the source of the key, not the key.
        os.environ["SNAPLIB_ENCRYPTION_KEY"] = args.encryption_key
    try:
        status: int = importlib.import_module(f"snaplib.cli.{args.verb}").run(args)
    except SnaplibError as error:
        if args.verbose:
            traceback.print_exc()
            print(getattr(error, "log", ""), file=sys.stderr)
        message(f"error: {error}")
        return error.exit_code
    except BrokenPipeError:
        # The reader of our output went away: nothing more to say to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return EXIT_USAGE
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        # What nobody has foreseen: a disk that is full, a file of somebody else's.
        if args.verbose:
            traceback.print_exc()
        message(f"error: {error} - `-v` shows where")
        return 1
    finally:
        if verb in _SUPERVISING:
            # Python takes its handlers away when it ends, which takes it a while.
            ignore_notices()
    return status


def program() -> NoReturn:
    """Run the command that this process was started for, and end with its status.

    What looks after a task ends at once.  While Python tidies up signals have their default again: a second SIGTERM
    would make of "saved" a run that was killed.  Nor is a thread waited for that hangs.
    """
    status = main()
    if _verb(sys.argv[1:]) in _SUPERVISING:
        for stream in (sys.stdout, sys.stderr):
            # Whoever read it may have gone away.
            with contextlib.suppress(OSError, AttributeError):
                stream.flush()
        os._exit(status)
    sys.exit(status)


def _verb(arguments: Sequence[str]) -> str | None:
    return next((word for word in arguments if not word.startswith("-")), None)
