"""How things in a store are named.

Ids are ``20261123T221530.123456-3fa9c1``: UTC to the microsecond and six random hexadecimal
digits.  Their order as text is the order of time, and within one key also the order of cause: the
id of a new snapshot is later than those of all that exist, even where the clock of the machine that
goes on is behind that of the machine that was taken away.
"""

from __future__ import annotations

import datetime as dt
import os
import urllib.parse

import blake3

from snaplib.errors import WrongType

__all__ = [
    "BLOCKS",
    "BORROWS",
    "ENDS",
    "IMAGES",
    "INDEX",
    "KEY",
    "MANIFESTS",
    "OBJECTS",
    "USES",
    "ends_folder",
    "key_folder",
    "manifest_folder",
    "manifest_name",
    "new_id",
    "object_folder",
    "object_name",
    "segment",
    "time_of",
]

MANIFESTS = "manifests"
OBJECTS = "objects"
ENDS = "ends"

#: The objects of a snapshot, beside its streams and segments.
INDEX = "index"
IMAGES = "images"
#: What of its pages is known by what is in them.
BLOCKS = "blocks"
#: What says, while a snapshot is being written, which segments of others it is going to refer to.
USES = "uses"
#: The same of other objects.
BORROWS = "borrows"
#: What says of a folder that has lost its snapshot, but not all that is in it, which key it was of.
KEY = "key"

_TIME_FORMAT = "%Y%m%dT%H%M%S.%f"
#: A file name may have 255 bytes.
_KEY_BYTES = 180


def new_id(now: dt.datetime, after: str | None = None) -> str:
    """Return a new snapshot id.

    Args:
        now: The time, with its zone.
        after: An id that the new one must sort after.
    """
    now = now.astimezone(dt.UTC)
    if after is not None:
        now = max(now, time_of(after) + dt.timedelta(microseconds=1))
    return f"{now.strftime(_TIME_FORMAT)}-{os.urandom(3).hex()}"


def time_of(snapshot_id: str) -> dt.datetime:
    """Return the time in an id, with its zone.

    Raises:
        ValueError: It is no id.
    """
    return dt.datetime.strptime(f"{snapshot_id.partition('-')[0]}+0000", f"{_TIME_FORMAT}%z")


def key_folder(key: str) -> str:
    """Return a key as a file name: percent-encoded, and if too long cut and ended with a hash.

    Two keys never have the same name; the key itself is in the manifest.

    Raises:
        WrongType: It is no text.
    """
    if not isinstance(key, str):
        raise WrongType(f"key is {key!r}, and must be text")
    encoded = urllib.parse.quote(key, safe=" +=@,:()", errors="surrogatepass")
    if encoded.startswith("."):
        encoded = "%2E" + encoded[1:]
    # A trailing % is no percent-encoding: neither can be the name of another key.
    if not encoded:
        return "%"
    if len(encoded) > _KEY_BYTES:
        digest = blake3.blake3(key.encode(errors="surrogatepass")).hexdigest(16)
        return f"{encoded[:_KEY_BYTES]}%{digest}%"
    return encoded


def manifest_folder(key: str) -> str:
    """Return the folder of a key's manifests."""
    return f"{MANIFESTS}/{key_folder(key)}"


def manifest_name(key: str, snapshot_id: str) -> str:
    """Return the name of a snapshot's manifest."""
    return f"{manifest_folder(key)}/{snapshot_id}.json"


def ends_folder(key: str) -> str:
    """Return the folder of the notes that tasks of a key have ended."""
    return f"{ENDS}/{key_folder(key)}"


def object_folder(snapshot_id: str) -> str:
    """Return the folder of a snapshot's objects."""
    return f"{OBJECTS}/{snapshot_id}"


def object_name(snapshot_id: str, name: str) -> str:
    """Return the full name of one of a snapshot's objects."""
    return f"{object_folder(snapshot_id)}/{name}"


def segment(number: int) -> str:
    """Return the name of a segment among its snapshot's objects."""
    return f"segment-{number:04d}"
