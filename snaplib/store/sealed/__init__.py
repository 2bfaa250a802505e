"""Stores whose bytes are encrypted before they leave the host, with AES-256-GCM.

Everything but the store's mark and the leases of writers is encrypted, and the folders that are named after keys get
other names.  What an adversary who holds the store can still tell: how many snapshots there are, when they were made,
and how large their objects are.
"""

from snaplib.store.sealed.backend import SealedBackend
from snaplib.store.sealed.key import check_key, read_key
from snaplib.store.sealed.seal import Seal

__all__ = ["Seal", "SealedBackend", "check_key", "read_key"]
