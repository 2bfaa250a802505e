"""CRIU's log: the reason for a failure, not the first error line."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from snaplib.criu import failure_reasons, log_tail

LOG = """\
Error (criu/util.c:1534): rlimit: Can't setup RLIMIT_NOFILE for self: Operation not permitted
Error (criu/kerndat.c:1234): tun: Unable to create tun: No such file or directory
Warn  (criu/page-xfer.c:165): page-xfer: Unable to set TCP_CORK=1: Operation not supported
Error (criu/files-ext.c:98): Can't dump file 7 of that type [600] (anon_inode:[io_uring])
Error (criu/cr-dump.c:1703): Dump files (pid: 300) failed with -1
Error (criu/cr-dump.c:2128): Dumping FAILED.
"""


def test_harmless_lines_are_left_out() -> None:
    """The limit that CRIU cannot raise and the device that it only tries come first and say nothing."""
    assert failure_reasons(LOG) == (
        "Can't dump file 7 of that type [600] (anon_inode:[io_uring])",
        "Dump files (pid: 300) failed with -1",
    )


def test_every_way_in_which_criu_leads_an_error_line() -> None:
    """Time stamps, the parasite and a process being restored each put something in front."""
    log = (
        "(00.012345) Error (a.c:1): one\n"
        "pie: 42: Error (b.c:2): two\n"
        "(00.5)    300: Error (c.c:3): three\n"
        "   300: Error (c.c:4): four\n"
        "Error (c.c:4): four\n"
    )
    assert failure_reasons(log) == ("one", "two", "three", "four")


@given(st.text())
def test_any_text_is_a_log(text: str) -> None:
    """A log cut off or full of binary never makes the parser fail."""
    assert all(reason.strip() for reason in failure_reasons(text))


def test_tail_of_a_log_that_is_not_there(tmp_path) -> None:
    """CRIU may fail before it opens its log."""
    assert log_tail(tmp_path / "none.log") == ""


def test_tail_takes_the_last_lines(tmp_path) -> None:
    """The end of a log is what counts."""
    path = tmp_path / "dump.log"
    path.write_text("\n".join(map(str, range(100))))
    assert log_tail(path, lines=3) == "97\n98\n99"
