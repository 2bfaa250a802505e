"""Stores for tests: one in memory, and others that fail, or do nothing, when they are told to."""

from snaplib.testing.failingbackend import FailingBackend, HaltingBackend
from snaplib.testing.memorybackend import MemoryBackend

__all__ = ["FailingBackend", "HaltingBackend", "MemoryBackend"]
