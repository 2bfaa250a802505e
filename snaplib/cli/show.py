"""`snaplib show`: one snapshot in detail."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from snaplib.cli.options import add_json, add_store
from snaplib.cli.output import emit_json, human_bytes, human_seconds, table
from snaplib.cli.printable import printable
from snaplib.store import PAGE_BYTES, Store

if TYPE_CHECKING:
    import argparse
    from collections.abc import Iterator, Mapping

    from snaplib.store import PageLogReader

__all__ = ["configure", "run"]

_KINDS = {1: "task", 2: "shared memory"}


def configure(parser: argparse.ArgumentParser) -> None:
    """Add the arguments."""
    parser.add_argument("snapshot", metavar="ID", help="the snapshot, or the beginning of its id")
    add_store(parser)
    add_json(parser)


def run(args: argparse.Namespace) -> int:
    """Print what is known of a snapshot."""
    with Store.open(args.store, create=False).read(args.snapshot) as reader:
        details = {
            **reader.snapshot.to_dict(),
            "spaces": _spaces(reader.pages),
            "frames": reader.pages.index.frame_counts(),
        }
    if args.json:
        emit_json(details)
    else:
        print("\n".join(_lines(details)))
    return 0


def _spaces(pages: PageLogReader) -> list[dict[str, Any]]:
    found = []
    for space in pages.spaces():
        runs = pages.index.runs_of(space)
        found.append(
            {
                "kind": _KINDS.get(space.kind, str(space.kind)),
                "id": space.id,
                "runs": len(runs),
                "pages": int(runs["pages"].sum()),
            }
        )
    return found


def _lines(details: Mapping[str, Any]) -> Iterator[str]:
    task, host = details["task"], details["host"]
    fields = {
        "id": details["id"],
        "key": details["key"],
        "taken": f"{details['created_at']} by snaplib {details['snaplib_version']}",
        "kind": " of ".join(filter(None, (details["kind"], details["parent"]))),
        "command": shlex.join(str(word) for word in task.get("command", ())),
        "directory": task.get("cwd"),
        "root pid": task.get("root_ns_pid"),
        "host": ", ".join(f"{name} {value}" for name, value in host.items()),
        "memory": f"{human_bytes(details['raw_bytes'])}, {details['pages']} pages",
        "stored": f"{human_bytes(details['stored_bytes'])}; frames: "
        + ", ".join(f"{count} {kind}" for kind, count in details["frames"].items()),
        "timings": ", ".join(
            f"{name.removesuffix('_s')} {human_seconds(value)}"
            for name, value in details["timings"].items()
        ),
    }
    fields["forecast"] = _forecast(details)
    for name, value in fields.items():
        if value not in (None, ""):
            yield f"{name + ':':<10} {printable(str(value))}"
    yield from _section("objects", ("NAME", "SIZE", "BLAKE3"), _objects(details["objects"]))
    inherited = [
        [segment["owner"], segment["name"], human_bytes(segment["size_bytes"])]
        for segment in details["segments"]
        if segment["owner"] != details["id"]
    ]
    yield from _section("segments of earlier snapshots", ("SNAPSHOT", "NAME", "SIZE"), inherited)
    yield from _section(
        "memory",
        ("SPACE", "ID", "RUNS", "SIZE"),
        [
            [
                space["kind"],
                str(space["id"]),
                str(space["runs"]),
                human_bytes(space["pages"] * PAGE_BYTES),
            ]
            for space in details["spaces"]
        ],
    )
    for title, records in (
        ("members", task.get("members", ())),
        ("streams", [{"stream": name, "is": value} for name, value in details["streams"].items()]),
    ):
        columns = list(dict.fromkeys(name for record in records for name in record))
        rows = [[printable(str(record.get(name, ""))) for name in columns] for record in records]
        yield from _section(title, [name.upper().replace("_", " ") for name in columns], rows)


def _forecast(details: Mapping[str, Any]) -> str | None:
    """Return what had been forecast, beside what came of it."""
    try:
        said = details["extra"]["forecast"]
        size, duration = said["size_bytes"], said["duration_s"]
        took = details["timings"].get("dump_s")
        return (
            f"{human_bytes(size['median'])} in {human_seconds(duration['median'])} "
            f"({human_seconds(duration['low'])} to {human_seconds(duration['high'])})"
            + (f"; it took {human_seconds(took)}" if took is not None else "")
        )
    except (KeyError, TypeError):
        return None


def _objects(objects: Mapping[str, Mapping[str, Any]]) -> list[list[str]]:
    return [
        [name, human_bytes(entry["size_bytes"]), entry["blake3"] or "a checksum a frame"]
        for name, entry in objects.items()
    ]


def _section(
    title: str, header: tuple[str, ...] | list[str], rows: list[list[str]]
) -> Iterator[str]:
    if rows:
        yield ""
        yield f"{title}:"
        yield from (f"  {line}" for line in table(header, rows).splitlines())
