"""Options that several commands share."""

from __future__ import annotations

import argparse
import os

__all__ = ["add_files", "add_json", "add_store", "default_store"]


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


def add_files(parser: argparse.ArgumentParser) -> None:
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
