"""`snaplib doctor`: what works on this host, and the remedy for what does not."""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING

from snaplib.cli.options import add_json
from snaplib.cli.output import emit_json, human_bytes, table
from snaplib.errors import EXIT_CANNOT_DUMP
from snaplib.host import Feature, Host

if TYPE_CHECKING:
    import argparse

__all__ = ["configure", "run"]

_TRIAL = "dump_and_restore"
_TRIAL_MODULE = "snaplib.checkpoint.trial"
_INCREMENTAL = "incremental"


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the options."""
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Probe, print, and return 0 when tasks can be dumped and restored here."""
    host = Host.probe()
    features = dict(host.features)
    missing = host.missing
    if (tried := _trial(missing)) is not None:
        features[_TRIAL] = tried
    features[_INCREMENTAL] = _incremental(host, missing)
    ok = not missing and (tried is None or tried.ok)
    if args.json:
        emit_json(_as_json(host, features, ok=ok))
    else:
        print(_as_text(host, features, ok=ok))
    return 0 if ok else EXIT_CANNOT_DUMP


def _trial(missing: tuple[str, ...]) -> Feature | None:
    """Dump and restore a small child, unless it is known that this cannot work.

    Returns:
        The outcome; None where this snaplib has no such trial.
    """
    if importlib.util.find_spec(_TRIAL_MODULE) is None:
        return None
    if missing:
        lacking = ", ".join(name.replace("_", " ") for name in missing)
        return Feature(False, f"not tried without {lacking}", "see there", needed=True)
    module = importlib.import_module(_TRIAL_MODULE)
    found = module.dump_and_restore_trial()
    return Feature(found.ok, found.detail, found.remedy, needed=True)


def _incremental(host: Host, missing: tuple[str, ...]) -> Feature:
    """Try whether a dump can leave out what did not change; a task can be saved without it."""
    if missing:
        return Feature(False, "not tried", "see what is missing")
    module = importlib.import_module("snaplib.checkpoint.incremental")
    found: Feature = module.incremental_trial(host)
    return found


def _as_json(host: Host, features: dict[str, Feature], *, ok: bool) -> dict[str, object]:
    return {
        "ok": ok,
        "criu": {
            "path": str(host.criu.path) if host.criu is not None else None,
            "version": host.criu.version_text if host.criu is not None else None,
        },
        "bpf": host.bpf,
        "tracking": host.tracking,
        "kernel": host.kernel,
        "arch": host.arch,
        "cpus": host.cpus,
        "memory_bytes": host.memory_bytes,
        "capabilities": sorted(host.capabilities),
        "features": {
            name: {"ok": one.ok, "detail": one.detail, "remedy": one.remedy}
            for name, one in features.items()
        },
    }


def _as_text(host: Host, features: dict[str, Feature], *, ok: bool) -> str:
    head = (
        f"Linux {host.kernel} {host.arch}, {host.cpus} CPUs, {human_bytes(host.memory_bytes)};"
        f" bpf: {host.bpf}, tracking: {host.tracking}"
    )
    rows = [
        (name.replace("_", " "), _verdict(one), one.detail if one.ok else _failure(one))
        for name, one in features.items()
    ]
    tail = (
        "Tasks can be dumped and restored here."
        if ok
        else "Tasks cannot be dumped and restored here: see what is marked MISSING."
    )
    return "\n".join([head, "", table(("FEATURE", "", "FOUND"), rows), "", tail])


def _verdict(feature: Feature) -> str:
    if feature.ok:
        return "ok"
    return "MISSING" if feature.needed else "no"


def _failure(feature: Feature) -> str:
    return f"{feature.detail}. Remedy: {feature.remedy}" if feature.remedy else feature.detail
