"""Stores in a bucket: S3 and what speaks like it, Google Cloud Storage, Azure, and this process's memory."""

from snaplib.store.remote.address import SCHEMES, open_remote
from snaplib.store.remote.backend import RemoteBackend

__all__ = ["SCHEMES", "RemoteBackend", "open_remote"]
