"""Settings of the manual; `make docs` builds it, and any warning is an error."""

from __future__ import annotations

from importlib.metadata import version as installed_version

project = "snaplib"
author = "the snaplib developers"
copyright = "the snaplib developers, Apache-2.0"
release = installed_version("snaplib")
version = release

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
]
exclude_patterns = ["_build"]

html_theme = "furo"
html_title = f"snaplib {release}"

myst_enable_extensions = ["deflist", "fieldlist"]
myst_heading_anchors = 3

autodoc_member_order = "bysource"
autodoc_typehints = "description"
# Debian packages that a machine which builds the manual need not have.
autodoc_mock_imports = ["bcc", "pycriu"]
napoleon_numpy_docstring = False
