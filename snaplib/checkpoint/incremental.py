"""Whether a dump on this host can leave out what did not change, and by what."""

from __future__ import annotations

from snaplib.checkpoint.shimproof import trusted_shim
from snaplib.errors import SnaplibError
from snaplib.host import Feature, Host

__all__ = ["incremental_trial"]


def incremental_trial(host: Host) -> Feature:
    """Try it; where it has been tried before, look up how it went.

    Args:
        host: What the host can do otherwise.
    """
    soft_dirty = host.features["soft_dirty"]
    if soft_dirty.ok:
        return Feature(True, f"CRIU with the kernel's own bits: {soft_dirty.detail}")
    write_protect = host.features["write_protect"]
    if not write_protect.ok:
        return Feature(False, "nothing tells which pages change", write_protect.remedy)
    if host.criu is None:
        return Feature(False, "there is no CRIU", host.features["criu"].remedy)
    try:
        shim = trusted_shim(host.criu)
    except SnaplibError as error:
        return Feature(False, error.message, error.hint or "see what `criu check --all` says")
    return Feature(True, f"CRIU with {shim.path.name}, proven")
