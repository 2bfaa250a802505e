"""Whether a dump on this host can leave out what did not change, and by what."""

from __future__ import annotations

from snaplib.checkpoint.shimproof import trust_soft_dirty, trusted_shim
from snaplib.errors import SnaplibError
from snaplib.host import Feature, Host

__all__ = ["incremental_trial"]


def incremental_trial(host: Host) -> Feature:
    """Try it; where it has been tried before, look up how it went.

    Args:
        host: What the host can do otherwise.
    """
    if host.tracking == "none":
        remedy = host.features["write_protect"].remedy
        return Feature(False, "nothing tells which pages change", remedy)
    if host.criu is None:
        return Feature(False, "there is no CRIU", host.features["criu"].remedy)
    try:
        # By what tells which pages change: a task has one tracker, and CRIU must agree with it.
        if host.tracking == "write-protect":
            by = trusted_shim(host.criu).path.name
        else:
            trust_soft_dirty(host.criu)
            by = "the kernel's soft-dirty bits"
    except SnaplibError as error:
        return Feature(False, error.message, error.hint or "see what `criu check --all` says")
    return Feature(True, f"CRIU with {by}, proven")
