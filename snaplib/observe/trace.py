"""Recorded profiles in one file.

A file begins with 8 bytes of magic and a version. After it come records: length and xxh3-64 of the
payload, kind, payload. A payload is a zstd frame of one profile (`codec`). Every so many profiles one is
compressed by itself, the *key*; those after it are compressed with the key as their dictionary, for one
profile is much like the next. A recording that was cut off ends with its last whole record.
"""

from __future__ import annotations

import os
import struct
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, Self

import xxhash

from snaplib import arguments
from snaplib.errors import TraceFailed, UsageError
from snaplib.observe.codec import decode, encode
from snaplib.observe.profile import Profile

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

__all__ = ["Trace", "TraceWriter"]

_MAGIC = b"snaptrc\n"
_VERSION = 1
_HEADER = struct.Struct("<8sII")
_RECORD = struct.Struct("<IBxxxQ")

_KEY, _FOLLOWING = 1, 2

#: Profiles between two keys: what a damaged key costs.
_KEY_INTERVAL = 64

#: No profile is this long: 20 million descriptors.
_MAX_PAYLOAD_BYTES = 1 << 30

_LEVEL = 6


class TraceWriter:
    """Records profiles; each is on its way to the disk when `write` returns.

    Args:
        path: The file; a trace that is there is continued, behind its last whole record.

    Raises:
        UsageError: The file is something else.
        TraceFailed: It cannot be written; an OSError.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(arguments.path("path", path))
        self._since_key = _KEY_INTERVAL
        self._dictionary: zstd.ZstdDict | None = None
        try:
            self._file = _open(self.path)
        except (OSError, ValueError) as error:
            raise TraceFailed(f"the trace {self.path} cannot be written: {_why(error)}") from error
        try:
            if os.fstat(self._file.fileno()).st_size == 0:
                self._file.write(_HEADER.pack(_MAGIC, _VERSION, 0))
            else:
                end = _end_of_records(self._file, self.path)
                self._file.truncate(end)
                self._file.seek(end)
        except BaseException:
            self._file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write(self, profile: Profile) -> None:
        """Add a profile.

        Raises:
            TraceFailed: It cannot be written; an OSError.
        """
        raw = encode(profile)
        if self._since_key >= _KEY_INTERVAL:
            kind, payload = _KEY, zstd.compress(raw, _LEVEL)
            self._dictionary = zstd.ZstdDict(raw, is_raw=True)
            self._since_key = 0
        else:
            kind, payload = _FOLLOWING, zstd.compress(raw, _LEVEL, zstd_dict=self._dictionary)
        self._since_key += 1
        # One write: another process that reads along sees the whole record, or none, or a cut one.
        try:
            self._file.write(
                _RECORD.pack(len(payload), kind, xxhash.xxh3_64_intdigest(payload)) + payload
            )
        except (OSError, ValueError) as error:
            raise TraceFailed(f"the trace {self.path} cannot be written: {_why(error)}") from error

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class Trace:
    """A recorded trace; iterate over it for its profiles, as often as you like.

    Args:
        path: The file. It may still be written to: each iteration goes as far as it is then.

    Raises:
        UsageError: The file is not there, is no trace, or was written by a newer snaplib.
        TraceFailed: It cannot be read; an OSError.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(arguments.path("path", path))
        try:
            with self.path.open("rb") as file:
                _read_header(file, self.path)
        except FileNotFoundError:
            raise UsageError(
                f"there is no trace {self.path}", hint="record one with `snaplib watch --record`"
            ) from None
        except UsageError:
            raise
        except (OSError, ValueError) as error:
            raise TraceFailed(f"the trace {self.path} cannot be read: {_why(error)}") from error

    def __iter__(self) -> Iterator[Profile]:
        with self.path.open("rb") as file:
            _read_header(file, self.path)
            dictionary: zstd.ZstdDict | None = None
            for kind, payload in _records(file):
                if kind == _KEY:
                    raw = zstd.decompress(payload)
                    dictionary = zstd.ZstdDict(raw, is_raw=True)
                elif kind == _FOLLOWING and dictionary is not None:
                    raw = zstd.decompress(payload, zstd_dict=dictionary)
                else:
                    continue  # of a newer version
                yield decode(raw)


def _open(path: Path) -> BinaryIO:
    return path.open("r+b", buffering=0) if path.exists() else path.open("w+b", buffering=0)


def _why(error: OSError | ValueError) -> str:
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


def _read_header(file: BinaryIO, path: Path) -> None:
    head = file.read(_HEADER.size)
    if len(head) < _HEADER.size or head[:8] != _MAGIC:
        raise UsageError(f"{path} is not a trace", hint="record one with `snaplib watch --record`")
    _, version, _ = _HEADER.unpack(head)
    if version > _VERSION:
        raise UsageError(
            f"the trace {path} is of version {version}, and this snaplib reads up to {_VERSION}",
            hint="upgrade snaplib",
        )


def _records(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    """Yield kind and payload of each whole record; what is cut off or damaged ends it."""
    while True:
        head = file.read(_RECORD.size)
        if len(head) < _RECORD.size:
            return
        length, kind, checksum = _RECORD.unpack(head)
        if length > _MAX_PAYLOAD_BYTES:
            return
        payload = file.read(length)
        if len(payload) < length or xxhash.xxh3_64_intdigest(payload) != checksum:
            return
        yield kind, payload


def _end_of_records(file: BinaryIO, path: Path) -> int:
    file.seek(0)
    _read_header(file, path)
    end = file.tell()
    for _ in _records(file):
        end = file.tell()
    return end
