"""Which backend an address means."""

from __future__ import annotations

import urllib.parse
from pathlib import Path
from typing import TYPE_CHECKING

from snaplib.errors import UsageError
from snaplib.store.bounded import BoundedBackend
from snaplib.store.local import LocalBackend

if TYPE_CHECKING:
    from snaplib.store.backend import Backend

__all__ = ["open_backend"]

_REMOTE = ("s3", "gs", "az", "memory")


def open_backend(url: str) -> Backend:
    """Return the backend of an address; nothing is read or made.

    Args:
        url: A path, or a URL: ``file://``, ``s3://``, ``gs://``, ``az://`` or ``memory://``.

    Raises:
        UsageError: The address means nothing to us.
    """
    if "\0" in url:
        raise UsageError(f"{url!r} has a NUL in it, and is no address of a store", hint=_HINT)
    scheme, separator, rest = url.partition("://")
    if not separator:
        path = url
        if url.partition(":")[0] in (*_REMOTE, "file") and ":" in url:
            raise UsageError(
                f"{url} lacks a part of an address",
                hint=f"write {url.partition(':')[0]}://, or ./{url} for a folder of that name",
            )
    elif scheme == "file":
        parsed = urllib.parse.urlsplit(url)
        if parsed.netloc not in ("", "localhost"):
            raise UsageError(
                f"{url} names a folder of another machine", hint="write file:///path for a folder"
            )
        path = urllib.parse.unquote(parsed.path)
    elif scheme in _REMOTE:
        # Late: a local store does without all of it.
        from snaplib.store.remote import open_remote  # noqa: PLC0415

        return open_remote(url)
    else:
        raise UsageError(f"no store is known by {scheme}://{rest}", hint=_HINT)
    if not path.strip():
        raise UsageError("the address of the store is empty", hint=_HINT)
    return BoundedBackend(LocalBackend(Path(path).expanduser().absolute()))


_HINT = "name a folder, as a path or as file:///path, or a bucket, as s3://, gs:// or az://"
