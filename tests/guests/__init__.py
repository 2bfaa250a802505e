"""Throw-away virtual machines with stock Debian kernels, and what is tried in them; see docs/guests.md."""
