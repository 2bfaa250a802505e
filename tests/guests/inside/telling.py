"""A plugin of pytest for guests: the outcome of each test is told as a line when it is known, for `results.told_in`.

What a guest has told by then is not lost when it is ended, or dies.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tests.guests.results import MARK

if TYPE_CHECKING:
    import pytest


#: So much is told of a failure: its end, where the error is.
_MOST_CHARACTERS = 4000


class Telling:
    """Says in the output what is going to be run, and how each test went.

    Args:
        config: Of pytest.
    """

    def __init__(self, config: pytest.Config) -> None:
        self._config = config

    def _tell(self, **what: Any) -> None:
        reporter = self._config.pluginmanager.get_plugin("terminalreporter")
        assert reporter is not None
        reporter.ensure_newline()
        reporter.write(f"{MARK}{json.dumps(what)}\n", flush=True)

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Tell which tests there are."""
        self._tell(collected=[item.nodeid for item in session.items])

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Tell how a test went; one that fails in its fixtures is told of by that."""
        if report.when != "call" and report.outcome == "passed":
            return
        why = ""
        if report.outcome == "skipped" and isinstance(report.longrepr, tuple):
            why = str(report.longrepr[2]).removeprefix("Skipped: ")
        elif report.failed:
            why = report.longreprtext[-_MOST_CHARACTERS:]
        duration_s = round(report.duration, 1)
        self._tell(test=report.nodeid, outcome=report.outcome, why=why, duration_s=duration_s)

    def pytest_report_teststatus(self, report: pytest.TestReport) -> tuple[str, str, str] | None:
        """Leave out the letters, for the lines say it."""
        if report.when == "call" or report.outcome != "passed":
            category = "error" if report.failed and report.when != "call" else report.outcome
            return category, "", ""
        return None


def pytest_configure(config: pytest.Config) -> None:
    """Begin to tell."""
    config.pluginmanager.register(Telling(config))
