"""Fakes for tests of code that uses snaplib: nothing here touches a real task."""

from __future__ import annotations
