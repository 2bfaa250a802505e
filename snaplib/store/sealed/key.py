"""Where the key comes from: a file, an environment variable or a command."""

from __future__ import annotations

import base64
import binascii
import os
import shlex
import subprocess
from pathlib import Path
from typing import Any

from snaplib.errors import EncryptionKeyError, WrongType

__all__ = ["KEY_BYTES", "check_key", "read_key"]

KEY_BYTES = 32
_COMMAND_S = 30.0


def read_key(source: str) -> bytes:
    """Return the key that a source gives.

    Args:
        source: ``file:PATH``, ``env:NAME`` or ``command:COMMAND``, whose output it is.  It is 32 bytes, as they are, in
            hexadecimal or in base64.

    Raises:
        EncryptionKeyError: There is none, or it is no key.
    """
    kind, _, rest = source.partition(":")
    if kind == "file" and rest:
        try:
            found = Path(rest).expanduser().read_bytes()
        except OSError as error:
            raise EncryptionKeyError(
                f"the encryption key cannot be read: {rest}: {error.strerror}"
            ) from error
    elif kind == "env" and rest:
        text = os.environ.get(rest)
        if text is None:
            raise EncryptionKeyError(f"the encryption key is to be in ${rest}, which is not set")
        found = os.fsencode(text)
    elif kind == "command" and rest:
        found = _output(rest)
    else:
        # Not repeated: it may be the key itself.
        raise EncryptionKeyError(
            "no source of an encryption key begins like that",
            hint="write file:PATH, env:NAME or command:COMMAND",
        )
    return _decoded(found, f"{kind}:..." if kind == "command" else source)


def check_key(key: Any) -> None:
    """Make sure that a key is one.

    Raises:
        WrongType: It is no bytes.
        EncryptionKeyError: It is not of 32 bytes.
    """
    if not isinstance(key, bytes):
        raise WrongType("encryption_key must be 32 bytes, or the text that says where they are")
    if len(key) != KEY_BYTES:
        raise EncryptionKeyError(
            f"the encryption key has {len(key)} bytes, and must have {KEY_BYTES}"
        )


def _output(command: str) -> bytes:
    try:
        words = shlex.split(command)
        done = subprocess.run(words, capture_output=True, timeout=_COMMAND_S, check=False)
    except (OSError, ValueError, subprocess.TimeoutExpired) as error:
        raise EncryptionKeyError(
            f"the command for the encryption key cannot be run: {type(error).__name__}"
        ) from error
    if done.returncode:
        raise EncryptionKeyError(
            f"the command for the encryption key ended with status {done.returncode}"
        )
    return done.stdout


def _decoded(found: bytes, source: str) -> bytes:
    if len(found) == KEY_BYTES:
        return found
    text = found.strip()
    if len(text) == 2 * KEY_BYTES:
        try:
            return bytes.fromhex(text.decode("ascii"))
        except ValueError:
            pass
    try:
        key = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if len(key) != KEY_BYTES:
        raise EncryptionKeyError(f"what {source} gives is no key of {KEY_BYTES} bytes")
    return key
