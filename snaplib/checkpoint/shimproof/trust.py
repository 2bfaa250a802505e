"""Pairs of CRIU and kernel for which the proof has succeeded."""

from __future__ import annotations

import contextlib
import json
import os
from functools import cache
from pathlib import Path

import blake3

from snaplib.checkpoint.shimproof.proof import prove_shim, prove_soft_dirty
from snaplib.criu import Criu, Shim, prepare_shim
from snaplib.errors import ShimUnusable, SnaplibError
from snaplib.runtime import cache_dir

__all__ = ["trust_soft_dirty", "trusted_shim"]

#: Raise it when the proof asks for more: what was proven before is proven anew then.
_PROOF = 1


def trusted_shim(criu: Criu) -> Shim:
    """Return the preload library for a CRIU with which it was proven to work on this kernel.

    The first time that takes about a second; a success is remembered in the cache folder, a failure in this process.

    Args:
        criu: The binary.

    Raises:
        ShimUnusable: It cannot be built, or the proof failed.
    """
    shim = prepare_shim(criu)
    _trust(criu, shim)
    return shim


def trust_soft_dirty(criu: Criu) -> None:
    """Return if CRIU was proven to work with this kernel's soft-dirty bits; tried and remembered as for `trusted_shim`.

    Args:
        criu: The binary.

    Raises:
        ShimUnusable: The proof failed.
    """
    _trust(criu, None)


def _trust(criu: Criu, shim: Shim | None) -> None:
    found = criu.path.stat()
    system = os.uname()
    pair = (
        *(_PROOF, shim.digest if shim else "soft-dirty", str(criu.path), criu.version_text),
        *(found.st_size, found.st_mtime_ns, system.release, system.version, system.machine),
    )
    problem = _problem(criu, shim, json.dumps(pair))
    if problem:
        raise ShimUnusable(
            f"CRIU cannot be trusted to leave out only what did not change: {problem}"
        )


@cache
def _problem(criu: Criu, shim: Shim | None, pair: str) -> str:
    """Return what is wrong; empty if nothing is."""
    name = blake3.blake3(pair.encode()).hexdigest(10)
    remembered: Path | None = None
    with contextlib.suppress(SnaplibError):
        remembered = cache_dir("criu") / f"proven-{name}"
        if remembered.exists():
            return ""
    try:
        if shim is None:
            prove_soft_dirty(criu)
        else:
            prove_shim(criu, shim)
    except (SnaplibError, OSError) as error:
        return str(getattr(error, "message", error)) or type(error).__name__
    if remembered is not None:
        with contextlib.suppress(OSError):
            remembered.write_text(pair + "\n")
    return ""
