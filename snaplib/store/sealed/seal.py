"""The keys of one store, and how a piece of an object is encrypted.

From the user's key and the store's salt HKDF-SHA256 derives three keys: for names, for objects, and for a check by
which a wrong key is told.  Each object has a key of its own, HMAC-SHA256 of its name, so a piece that is moved to
another object is not taken for one of it.  A piece is a random nonce of 12 bytes, the ciphertext and a tag of 16; what
is authenticated with it says which piece of the object it is.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from snaplib.errors import EncryptionKeyError, NotAStore, SnapshotDamaged

if TYPE_CHECKING:
    from snaplib.store.backend import Data

__all__ = ["SEAL_BYTES", "ObjectSeal", "Seal"]

_CIPHER = "AES-256-GCM"
_NONCE_BYTES = 12
_TAG_BYTES = 16
#: How much longer a piece is than what is in it.
SEAL_BYTES = _NONCE_BYTES + _TAG_BYTES
_SALT_BYTES = 32

#: Folders in which the second part of a name is made of the key of a task.
_KEYED = ("manifests", "ends", "journal")
#: What such a part begins with once it is encrypted; no key's folder does.
_HIDDEN = "%~"


class Seal:
    """The keys of one store.

    Args:
        key: The user's, 32 bytes.
        salt: The store's.
    """

    def __init__(self, key: bytes, salt: bytes) -> None:
        # Late: it is large, and stores that are not encrypted do without.
        from cryptography.hazmat.primitives import hashes  # noqa: PLC0415
        from cryptography.hazmat.primitives.kdf.hkdf import HKDF  # noqa: PLC0415

        derived = HKDF(hashes.SHA256(), 96, salt, b"snaplib store 1").derive(key)
        self.key = key
        self._salt = salt
        self._names, self._objects, self._check = derived[:32], derived[32:64], derived[64:]

    @classmethod
    def new(cls, key: bytes) -> Seal:
        """Return the keys of a new store."""
        return cls(key, os.urandom(_SALT_BYTES))

    def to_json(self) -> dict[str, Any]:
        """Return what the store's mark says of it; no secret."""
        return {"cipher": _CIPHER, "salt": self._salt.hex(), "check": self._check.hex()}

    @classmethod
    def from_json(cls, key: bytes, fields: Any, url: str) -> Seal:
        """Return the keys of a store that exists.

        Args:
            key: The user's.
            fields: What its mark says.
            url: The store, for errors.

        Raises:
            EncryptionKeyError: It is the key of something else.
            NotAStore: The mark is not what we write.
        """
        try:
            cipher, salt, check = fields["cipher"], bytes.fromhex(fields["salt"]), fields["check"]
        except (TypeError, KeyError, ValueError) as error:
            raise NotAStore(f"{url}: the mark is not what snaplib writes") from error
        seal = cls(key, salt)
        import hmac  # noqa: PLC0415  late like the ciphers

        if cipher != _CIPHER or not hmac.compare_digest(seal.to_json()["check"], str(check)):
            raise EncryptionKeyError(
                f"the encryption key given is not the one of {url}",
                hint="give the key that the store was made with",
            )
        return seal

    def name(self, name: str) -> str:
        """Return the name that an object has in the store; one that is that already stays."""
        parts = name.split("/")
        if parts[0] in _KEYED and len(parts) > 1 and not parts[1].startswith(_HIDDEN):
            digest = _hmac(self._names, parts[1])
            parts[1] = f"{_HIDDEN}{digest[:20].hex()}"
        return "/".join(parts)

    def object(self, name: str) -> ObjectSeal:
        """Return what encrypts an object.

        Args:
            name: Its name in the store.
        """
        return ObjectSeal(name, _hmac(self._objects, name))


class ObjectSeal:
    """Encrypts the pieces of one object; any thread may use it.

    Args:
        name: The object's name, for errors.
        key: Its key.
    """

    def __init__(self, name: str, key: bytes) -> None:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM  # noqa: PLC0415 - late

        self._name = name
        self._cipher = AESGCM(key)

    def close(self, piece: Data, place: bytes) -> bytes:
        """Return a piece encrypted.

        Args:
            piece: The piece.
            place: Which piece of the object it is.
        """
        # Random, of an object's own key: 2^-57 is the chance that two of a million pieces have the same.
        nonce = os.urandom(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, piece, place)

    def open(self, sealed: Data, place: bytes) -> bytes:
        """Return what is in an encrypted piece.

        Args:
            sealed: What `close` returned.
            place: Which piece it must be.

        Raises:
            SnapshotDamaged: It is not.
        """
        from cryptography.exceptions import InvalidTag  # noqa: PLC0415 - late, as above

        view = memoryview(sealed)
        try:
            return self._cipher.decrypt(view[:_NONCE_BYTES], view[_NONCE_BYTES:], place)
        except (InvalidTag, ValueError) as error:
            raise SnapshotDamaged(
                f"{self._name}: a piece of it is not what was encrypted"
            ) from error


def _hmac(key: bytes, text: str) -> bytes:
    import hmac  # noqa: PLC0415  it brings OpenSSL, 3 MB, which stores that are not encrypted do without

    return hmac.digest(key, text.encode(), "sha256")
