"""What tests need from the host."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Iterator

import pytest

from snaplib.host import Host
from snaplib.kernel import ProcFs

# An emulated machine takes ten seconds to import it, and tries none of its tests.
if os.environ.get("SNAPLIB_GUEST") != "1":
    import hypothesis

    # How fast examples come says how loaded the machine is, and nothing of what is tested.
    hypothesis.settings.register_profile(
        "loaded", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
    )
    hypothesis.settings.load_profile("loaded")

_probe = functools.cache(Host.probe)


@pytest.fixture(scope="session")
def require() -> Callable[..., None]:
    """Return a function that skips the test unless this host has all features it is given.

    Names are those of `snaplib doctor`; ``all`` stands for every one that dumping needs. With
    SNAPLIB_REQUIRE_KERNEL=1 in the environment a missing feature fails the test instead.
    """

    def check(*names: str) -> None:
        host = _probe()
        wanted = host.missing if "all" in names else names
        for name in wanted:
            feature = host.features[name]
            if not feature.ok:
                reason = f"this host lacks {name}: {feature.detail}. {feature.remedy}"
                if os.environ.get("SNAPLIB_REQUIRE_KERNEL") == "1":
                    pytest.fail(reason, pytrace=False)
                pytest.skip(reason)

    return check


@pytest.fixture(autouse=True, scope="session")
def _own_state(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Have the dumps of tests noted in a history of their own, not the user's."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SNAPLIB_STATE_DIR", str(tmp_path_factory.mktemp("state")))
        yield


@pytest.fixture
def kernel_thread() -> int:
    """The pid of a thread of the kernel's own; a container has none to look at."""
    procfs = ProcFs()
    for pid in procfs.pids():
        with contextlib.suppress(ProcessLookupError):
            if procfs.stat(pid).kernel_thread:
                return pid
    pytest.skip("no kernel thread is visible in this PID namespace")


@pytest.fixture(autouse=True)
def _required(request: pytest.FixtureRequest) -> None:
    marks = list(request.node.iter_markers("require"))
    if marks:
        check = request.getfixturevalue("require")
        for mark in marks:
            check(*mark.args)


def pytest_configure(config: pytest.Config) -> None:
    """Declare the mark, and have a session of our own where ours is led from another PID namespace.

    CRIU cannot dump a process whose session's leader it does not see; what the tests start is in ours.
    """
    if os.getsid(0) == 0:
        with contextlib.suppress(PermissionError):  # we lead a process group: so does a shell's job
            os.setsid()
    config.addinivalue_line(
        "markers", "require(feature, ...): skip, or fail, without these features of the host"
    )
