"""Which backend an address means."""

from __future__ import annotations

import urllib.parse
from pathlib import Path

from snaplib.errors import UsageError
from snaplib.store.local import LocalBackend

__all__ = ["open_backend"]

_LATER = ("s3", "gs", "az", "memory")


def open_backend(url: str) -> LocalBackend:
    """Return the backend of a ``file://`` URL or a path; nothing is read or made.

    Raises:
        UsageError: The address means nothing to us.
    """
    scheme, separator, rest = url.partition("://")
    if not separator:
        path = url
    elif scheme == "file":
        parsed = urllib.parse.urlsplit(url)
        if parsed.netloc not in ("", "localhost"):
            raise UsageError(
                f"{url} names a folder of another machine", hint="write file:///path for a folder"
            )
        path = urllib.parse.unquote(parsed.path)
    elif scheme in _LATER:
        raise UsageError(f"stores at {scheme}:// are not supported yet: {url}", hint=_HINT)
    else:
        raise UsageError(f"no store is known by {scheme}://{rest}", hint=_HINT)
    if not path:
        raise UsageError("the address of the store is empty", hint=_HINT)
    return LocalBackend(Path(path).expanduser().absolute())


_HINT = "name a folder, as a path or as file:///path"
