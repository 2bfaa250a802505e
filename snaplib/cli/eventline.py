"""An event in a line for people."""

from __future__ import annotations

import shlex
from typing import Any

from snaplib.cli.output import human_bytes, human_seconds
from snaplib.event import Event

__all__ = ["event_line"]


def event_line(event: Event) -> str:
    """Return the line; empty where people need not be told."""
    details = event.details
    match event.name:
        case "started":
            # It may have ended before anybody could look.
            pid = f"pid {details['pid']}, " if details["pid"] else ""
            return f"started {details['command']} ({pid}key {event.key})"
        case "not_started":
            return "notice came before anything was started; run the same command again"
        case "adopted":
            return f"took over the task of a supervisor that died (pid {details['pid']}, key {event.key})"
        case "restored":
            seconds = human_seconds(details["restore_s"])
            return f"restored snapshot {details['snapshot']} in {seconds} (pid {details['pid']})"
        case "promise":
            return _promise(details)
        case "snapshot_failed":
            return (
                f"snapshot failed: {details['reason']}; the task runs on, and {human_seconds(details['unsaved_s'])} of "
                f"its work would be lost; tried again in {human_seconds(max(0.0, details['again_s'] or 0.0))}"
            )
        case "waiting":
            when = details["start_s"]
            turn = (
                f"its turn is in about {human_seconds(when)}"
                if when is not None
                else "there may not be time"
            )
            return f"{details['ahead']} other tasks of this node are saved first; {turn}"
        case "ended_before":
            return (
                f"the command has ended before, at {details['ended_at'][:19]} UTC; this is its status again, and "
                "without --once it would run again"
            )
        case "notice":
            seconds = human_seconds(details["window_s"])
            who = "" if details["source"] == "signal" else f" ({_who(details)})"
            return f"notice: this machine ends in {seconds}{who}; saving the task"
        case "hint":
            return f"this machine may end soon ({_who(details)})"
        case "notice_cancelled":
            return f"notice taken back by {details['source']}: the task runs on"
        case "window_moved":
            return f"notice: this machine now ends in {human_seconds(details['window_s'])} ({details['source']})"
        case "source_failed":
            return f"source of notices {details['source']}: {details['reason']}; asking on"
        case "copied" if details.get("first") and event.state == "running":
            return (
                f"copied {human_bytes(details['warm_bytes'])} ahead: {details['reason']}; from now on only what "
                "changes is copied (--max-overhead and --max-copy-rate limit it)"
            )
        case "plan" if details["strategy"] != "full":
            return f"plan: {details['strategy']}, because {details['reasons'][0]}"
        case "plan_failed":
            return f"there is no plan: {details['reason']}; memory is copied ahead all the same"
        case "copy_failed":
            return f"nothing is copied ahead: {details['reason']}"
        case "saved" if "memory_bytes" in details:
            return (
                f"saved snapshot {details['snapshot']}: {_saved_memory(details)} as "
                f"{human_bytes(details['stored_bytes'])}, frozen {human_seconds(details['frozen_s'])}, "
                f"all in {human_seconds(details['dump_s'])}; run the same command again to go on"
            )
        case "saved":
            return f"saved snapshot {details['snapshot']}; run the same command again to go on"
        case "dump_failed":
            return f"dump failed: {details['reason']} ({human_seconds(details['left_s'])} of the window left)"
        case "obstacle":
            fatal = details["severity"] == "fatal"
            return (
                f"{'this task cannot be saved as it is' if fatal else 'a save would lose something'}: "
                f"pid {details['pid']} ({details['comm']}), {details['subject']}: "
                f"{details['message']} - {details['remedy']}"
            )
        case "connection":
            return "connection {local} to {remote}: {outcome}, {reason}".format(**details)
        case "killed":
            return (
                "the task was killed, for want of memory perhaps, or by a scheduler or a person; "
                + _after_kill(details["snapshot"])
            )
        case "end_not_noted":
            return (
                f"the store could not be told that the task has ended: {details['reason']}; remove its snapshots "
                f"before the same command is run again: snaplib prune --key {shlex.quote(event.key)} --keep 0"
            )
        case "not_removed":
            return (
                f"the snapshots of the task could not be removed: {details['reason']}; they are of no use any more: "
                f"snaplib prune --key {shlex.quote(event.key)} --keep 0"
            )
        case "restore_failed":
            # Where that is the end of the run, the reason comes as its error.
            reason = "" if event.state == "failed" else f": {details['reason']}; starting anew"
            return f"snapshot {details['snapshot']} could not be restored{reason}"
        case _:
            return ""


def _saved_memory(details: dict[str, Any]) -> str:
    memory, final = details["memory_bytes"], details["final_bytes"]
    if final is None:
        return f"{human_bytes(memory)} of memory"
    ahead = human_bytes(max(0, memory - final))
    return f"warm copy {ahead}, final {human_bytes(final)} of {human_bytes(memory)} of memory"


def _after_kill(snapshot: str | None) -> str:
    if snapshot is None:
        return "there is no snapshot of it, and the same command begins anew"
    return f"snapshot {snapshot} is kept: run the same command again to go on from there"


def _promise(details: dict[str, Any]) -> str:
    if details["lost_s"] is None:
        return (
            "no snapshots are made ahead any more: the window is long enough to save the task in it"
        )
    why = (
        "" if details["by"] == "option" else ", for the window is too short to save the task in it"
    )
    seconds = human_seconds(details["lost_s"])
    return f"saved every {seconds}{why}: if this machine goes early, at most {seconds} of work are lost"


def _who(details: dict[str, Any]) -> str:
    return f"{details['source']}: {details['detail']}" if details["detail"] else details["source"]
