"""CRIU's RPC messages, from pycriu's generated protocol module.

pycriu is a Debian package and belongs to a CRIU release, so it is looked for beside the binary that is used.
pycriu's own client is not used: it cannot answer notifications and drops error messages.
"""

from __future__ import annotations

import importlib
import sys
from functools import cache
from types import ModuleType

from snaplib.criu.binary import Criu
from snaplib.errors import CriuMissing

__all__ = ["image_messages", "rpc_messages"]


@cache
def rpc_messages(criu: Criu) -> ModuleType:
    """Return pycriu's module of RPC messages.

    Args:
        criu: The binary whose protocol is wanted.

    Raises:
        CriuMissing: pycriu is not installed, or does not go with this protobuf.
    """
    return _imported(criu, "pycriu.rpc_pb2")


@cache
def image_messages(criu: Criu, name: str) -> ModuleType:
    """Return pycriu's module of an image's messages.

    Args:
        criu: The binary whose images they are.
        name: CRIU's name of the protocol file, for example ``mm`` or ``regfile``.

    Raises:
        CriuMissing: pycriu is not installed, or does not go with this protobuf.
    """
    return _imported(criu, f"pycriu.images.{name}_pb2")


def _imported(criu: Criu, module: str) -> ModuleType:
    paths = [str(path) for path in criu.python_paths() if (path / "pycriu").is_dir()]
    before = list(sys.path)
    # Only while importing: dist-packages of another Python must not shadow anything else.
    sys.path[:0] = paths[:1]
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise CriuMissing(
            f"pycriu, the protocol of {criu.path}, cannot be imported: {error}",
            hint="run tools/setup, or install the package python3-pycriu",
        ) from error
    finally:
        sys.path[:] = before
