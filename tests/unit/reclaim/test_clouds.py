"""The sources of the clouds, against services that behave as the clouds document it."""

from __future__ import annotations

import threading
import time

import pytest

from snaplib.reclaim import Aws, Azure, Gcp, Notice, NoticeKind
from snaplib.testing.metadata import FakeAws, FakeAzure, FakeGcp


def test_aws_says_nothing_until_there_is_notice(step) -> None:
    with FakeAws() as fake:
        source = Aws(fake.url)
        assert step(source) == []
        fake.announce(120.0)
        (notice,) = step(source)
        assert notice.kind is NoticeKind.RECLAIM
        assert 60 < notice.window_s <= 120
        assert notice.detail.startswith("terminate at 20")
        assert step(source) == []
        assert fake.asked(FakeAws.TOKENS) == 1, "one token serves many questions"
        fake.cancel()
        assert step(source) == [Notice("aws", kind=NoticeKind.CANCELLED)]


def test_aws_gets_a_new_token_when_the_old_one_has_expired(step) -> None:
    with FakeAws() as fake:
        source = Aws(fake.url)
        step(source)
        fake.expire_tokens()
        fake.announce(60.0)
        assert [notice.kind for notice in step(source)] == [NoticeKind.RECLAIM]
        assert fake.asked(FakeAws.TOKENS) == 2


def test_aws_rebalance_recommendation_is_a_hint(step) -> None:
    with FakeAws() as fake:
        fake.recommend_rebalance()
        source = Aws(fake.url)
        assert [notice.kind for notice in step(source)] == [NoticeKind.HINT]
        fake.announce(120.0)
        assert [notice.kind for notice in step(source)] == [NoticeKind.RECLAIM]


@pytest.mark.parametrize("offset_s", [-3600.0, 3600.0])
def test_the_services_own_clock_counts(step, offset_s: float) -> None:
    """This machine's may be an hour wrong."""
    with FakeAws() as fake:
        fake.clock_offset_s = offset_s
        fake.announce(90.0)
        (notice,) = step(Aws(fake.url))
        assert 30 < notice.window_s <= 91


def test_aws_notice_that_is_late_leaves_some_time(step) -> None:
    with FakeAws() as fake:
        fake.announce(-20.0)
        (notice,) = step(Aws(fake.url))
        assert notice.window_s == 5.0


def test_a_service_that_hangs_up(step) -> None:
    with FakeAws() as fake:
        source = Aws(fake.url)
        fake.silent = True
        (notice,) = step(source)
        assert notice.kind is NoticeKind.TROUBLE
        assert fake.url in notice.detail
        fake.silent = False
        fake.announce(120.0)
        assert [one.kind for one in step(source)] == [NoticeKind.RECLAIM]


def test_no_proxy_is_asked(step, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with FakeAws() as fake:
        fake.announce(120.0)
        assert [one.kind for one in step(Aws(fake.url))] == [NoticeKind.RECLAIM]


def test_gcp_preemption_leaves_thirty_seconds(step) -> None:
    with FakeGcp() as fake:
        source = Gcp(fake.host, interval_s=1.0)
        assert step(source) == []
        fake.announce()
        (notice,) = step(source)
        assert (notice.kind, notice.window_s, source.window_s) == (NoticeKind.RECLAIM, None, 30.0)


def test_gcp_answers_at_once_when_it_changes(step) -> None:
    with FakeGcp() as fake:
        source = Gcp(fake.host, interval_s=100.0)
        step(source)
        threading.Timer(0.2, fake.announce).start()
        began = time.monotonic()
        assert [one.kind for one in step(source)] == [NoticeKind.RECLAIM]
        assert time.monotonic() - began < 60, "it did not wait for its interval"


def test_gcp_maintenance(step) -> None:
    with FakeGcp() as fake:
        source = Gcp(fake.host, interval_s=1.0)
        fake.maintain("MIGRATE_ON_HOST_MAINTENANCE")
        assert step(source) == [], "the machine is moved and does not end"
        fake.maintain("TERMINATE_ON_HOST_MAINTENANCE")
        (notice,) = step(source)
        assert notice.window_s == 60.0


def test_azure_preempt_is_matched_by_name_and_acknowledged(step) -> None:
    with FakeAzure() as fake:
        source = Azure(fake.url)
        fake.announce(30.0, name="another_8")
        fake.announce(30.0, kind="Freeze")
        assert step(source) == []
        source.acknowledge()
        assert fake.started == [], "there is nothing of ours to start"
        event = fake.announce(30.0)
        (notice,) = step(source)
        assert notice.kind is NoticeKind.RECLAIM
        assert 5 < notice.window_s <= 31
        source.acknowledge()
        assert fake.started == [event]


def test_azure_event_days_ahead_is_a_hint_until_it_is_near(step, clock) -> None:
    with FakeAzure() as fake:
        source = Azure(fake.url, clock=clock)
        fake.announce(3 * 86_400.0, kind="Redeploy")
        assert [one.kind for one in step(source)] == [NoticeKind.HINT]
        fake.clock_offset_s = 3 * 86_400.0 - 100
        (notice,) = step(source)
        assert notice.kind is NoticeKind.RECLAIM
        assert 30 < notice.window_s <= 101


def test_azure_event_that_is_called_off(step) -> None:
    with FakeAzure() as fake:
        source = Azure(fake.url)
        fake.announce(30.0)
        step(source)
        fake.cancel()
        assert step(source) == [Notice("azure", kind=NoticeKind.CANCELLED)]
