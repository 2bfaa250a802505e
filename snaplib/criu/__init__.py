"""The only package that speaks to CRIU: its binary, its RPC protocol, its log and its image formats."""

from snaplib.criu.binary import MINIMUM_VERSION, Criu, find_criu
from snaplib.criu.log import failure_reasons, log_tail
from snaplib.criu.remedies import remedy_for
from snaplib.criu.swrk import CriuError, Notification, Swrk

__all__ = [
    "MINIMUM_VERSION",
    "Criu",
    "CriuError",
    "Notification",
    "Swrk",
    "failure_reasons",
    "find_criu",
    "log_tail",
    "remedy_for",
]
