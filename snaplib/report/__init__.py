"""What snapshots were worth: from the journal of a store to figures, Prometheus and logs."""

from __future__ import annotations

from snaplib.report.hooks import structlog_events
from snaplib.report.prometheus import prometheus_text
from snaplib.report.summary import KeySummary, Report, summarize

__all__ = ["KeySummary", "Report", "prometheus_text", "structlog_events", "summarize"]
