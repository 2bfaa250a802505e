"""A report in Prometheus' text format, for the node exporter's textfile collector."""

from __future__ import annotations

from snaplib.report.summary import KeySummary, Report

__all__ = ["prometheus_text"]

#: Metric -> help, and the fields that are its samples, by the label's value.
_METRICS: dict[str, tuple[str, str, dict[str, str]]] = {
    "snaplib_runs_total": (
        "Runs by what became of them.",
        "outcome",
        {"saved": "saved", "cut_off": "cut_off", "ended": "ended", "open": "open"},
    ),
    "snaplib_resumed_total": ("Saved runs that went on.", "", {"": "resumed"}),
    "snaplib_compute_seconds_total": (
        "Seconds tasks ran: kept by snapshots, lost, and of runs in which they ended.",
        "fate",
        {"kept": "kept_s", "lost": "lost_s", "ended": "ended_s"},
    ),
    "snaplib_spent_seconds_total": (
        "Seconds spent on keeping them.",
        "on",
        {"dump": "dump_s", "frozen": "frozen_s", "restore": "restore_s", "copy": "copy_s"},
    ),
    "snaplib_stored_bytes_total": ("Bytes that dumps stored.", "", {"": "stored_bytes"}),
    "snaplib_dump_failures_total": ("Dumps that failed.", "", {"": "dump_failures"}),
}


def prometheus_text(report: Report) -> str:
    """Return a report as metrics, one sample a key.

    Args:
        report: The report.
    """
    lines = []
    for metric, (text, label, fields) in _METRICS.items():
        lines += [f"# HELP {metric} {text}", f"# TYPE {metric} counter"]
        for one in report.keys:
            lines += [_sample(metric, label, value, one, name) for value, name in fields.items()]
    return "\n".join(lines) + "\n"


def _sample(metric: str, label: str, value: str, one: KeySummary, name: str) -> str:
    key = one.key.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    more = f',{label}="{value}"' if label else ""
    return f'{metric}{{key="{key}"{more}}} {getattr(one, name):.10g}'
