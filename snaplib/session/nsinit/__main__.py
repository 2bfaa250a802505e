"""The entry of the init: stands in for the packages around it, so that none of their imports is run."""

from __future__ import annotations

import sys
import types
from pathlib import Path

_HERE = Path(__file__).resolve().parent


def _stand_in(name: str, path: Path) -> None:
    module = types.ModuleType(name)
    module.__path__ = [str(path)]
    sys.modules[name] = module


def _main() -> None:
    top = _HERE.parent.parent
    _stand_in("snaplib", top)
    _stand_in("snaplib.kernel", top / "kernel")
    _stand_in("snaplib.session", _HERE.parent)
    _stand_in("snaplib.session.nsinit", _HERE)
    # Put there for a folder that is run; a module named `select` beside us must not hide the real one.
    sys.path[:] = [path for path in sys.path if path != str(_HERE)]
    from snaplib.session.nsinit.launcher import launch  # noqa: PLC0415 - after the stand-ins

    launch(int(sys.argv[1]), int(sys.argv[2]))


_main()
