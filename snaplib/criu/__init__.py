"""The only package that speaks to CRIU: its binary, its RPC protocol, its log and its image formats."""

from snaplib.criu.binary import MINIMUM_VERSION, Criu, find_criu
from snaplib.criu.log import failure_reasons, log_tail
from snaplib.criu.parent import PARENT_NAMES, write_bare_parent
from snaplib.criu.remedies import remedy_for
from snaplib.criu.shim import Shim, prepare_shim
from snaplib.criu.swrk import CriuError, Notification, Swrk

__all__ = [
    "MINIMUM_VERSION",
    "PARENT_NAMES",
    "Criu",
    "CriuError",
    "Notification",
    "Shim",
    "Swrk",
    "failure_reasons",
    "find_criu",
    "log_tail",
    "prepare_shim",
    "remedy_for",
    "write_bare_parent",
]
