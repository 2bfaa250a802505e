"""Where bcc is, and which: known without importing it, for that takes 70 MB."""

from __future__ import annotations

import re
from pathlib import Path

__all__ = ["BCC_FOLDER", "installed_version"]

#: Where Debian and Ubuntu put Python modules of packages, bcc among them.
BCC_FOLDER = Path("/usr/lib/python3/dist-packages")


def installed_version() -> str | None:
    """Return the version of bcc on this machine without importing it; None without one."""
    try:
        text = (BCC_FOLDER / "bcc/version.py").read_text()
    except OSError:
        return None
    found = re.search(r"__version__\s*=\s*['\"]([^'\"]+)", text)
    return found[1] if found else "unknown"
