"""The mark: the object that makes a folder a store, and says how the others are to be read."""

from __future__ import annotations

import contextlib
import json
import re
from typing import TYPE_CHECKING, Any

from snaplib.errors import EncryptionKeyError, NotAStore, StoreTooNew
from snaplib.store.sealed import Seal, SealedBackend

if TYPE_CHECKING:
    from snaplib.store.backend import Backend

__all__ = ["unsealed"]

_MARK = "snaplib-store.json"
#: Objects that are about to get their name.
_TEMPORARY = re.compile(r"tmp/(clock-)?[0-9a-f]{16}")
#: The newest layout this snaplib knows: that of encrypted stores.
_FORMAT = 2
#: The layout of the others.
_PLAIN_FORMAT = 1


def _new_mark(key: bytes | None) -> bytes:
    fields: dict[str, Any] = {"format": _PLAIN_FORMAT}
    if key is not None:
        fields = {"format": _FORMAT, "encryption": Seal.new(key).to_json()}
    return json.dumps(fields).encode()


def unsealed(backend: Backend, key: bytes | None, *, create: bool) -> Backend:
    """Return the backend that understands what is in a store.

    Args:
        backend: Where its bytes are.
        key: The key of an encrypted store, 32 bytes.
        create: Make it a store if it is empty, with encryption if there is a key.

    Raises:
        NotAStore: There is none.
        StoreTooNew: A newer snaplib made it.
        EncryptionKeyError: The key is missing, or another's, or there is nothing to use it for.
    """
    try:
        mark = backend.get(_MARK)
    except FileNotFoundError:
        # A machine that lost its power while it made this a store may have left the beginnings.
        empty = all(_TEMPORARY.fullmatch(name) for name in backend.names(""))
        if not create or not empty:
            raise NotAStore(f"{backend.url} is not a snaplib store") from None
        # Somebody else may make it at the same time: what is there then counts.
        with contextlib.suppress(FileExistsError):
            backend.put_new(_MARK, _new_mark(key))
        mark = backend.get(_MARK)
    try:
        fields = json.loads(mark)
        found, encryption = fields["format"], fields.get("encryption")
    except (ValueError, KeyError, TypeError, AttributeError):
        found, encryption = None, None
    if not isinstance(found, int):
        raise NotAStore(f"{backend.url}: {_MARK} is not what snaplib writes")
    if found > _FORMAT:
        raise StoreTooNew(f"{backend.url} is of format {found}; this snaplib knows {_FORMAT}")
    if encryption is None:
        if key is not None:
            raise EncryptionKeyError(
                f"{backend.url} is not encrypted, and an encryption key was given",
                hint="name a new store, or give no key",
            )
        return backend
    if key is None:
        raise EncryptionKeyError(f"{backend.url} is encrypted, and no key was given")
    return SealedBackend(backend, Seal.from_json(key, encryption, backend.url))
