"""`groundswell dlq`: list, show, resend and delete dead letters."""

from __future__ import annotations

import base64
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streams.commands import _completion
from streams.errors import InputError
from streams.messages.escaping import safe
from streams.telemetry import console, progress

if TYPE_CHECKING:
    from streams.operations.dead_letter_queue import DeadLetter, DeadLetterQueue

app = typer.Typer(
    no_args_is_help=True, add_completion=False, rich_markup_mode=None, help="Dead letters: messages that were refused."
)

TOPIC_HELP = "follow, share or create, or a topic's full name"
OneTopic = Annotated[str, typer.Argument(autocompletion=_completion.inputs, help=f"{TOPIC_HELP}.")]
AnyTopic = Annotated[str, typer.Argument(autocompletion=_completion.inputs, help=f"{TOPIC_HELP}; default: all.")]
Reason = Annotated[
    str, typer.Option(autocompletion=_completion.reasons, help="Only letters with this reason: json, utf8, time, ...")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]

SHOWN_CHARS = 1_000


@contextmanager
def _letters() -> Iterator[DeadLetterQueue]:
    from streams.kafka import topics
    from streams.operations.dead_letter_queue import DeadLetterQueue
    from streams.settings.settings import Settings

    # The clients retry what they warn of; what fails for good is raised as an error.
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    settings = Settings.load()
    with topics.admin(settings) as client:
        yield DeadLetterQueue(settings, client)


def _size(letters: DeadLetterQueue, names: list[str]) -> int:
    return sum(end - begin for name in names for begin, end in letters.bounds(name).values())


def _time(time_ms: int) -> str:
    from streams.messages.headers import rfc3339

    return rfc3339(time_ms * 1_000) if 0 <= time_ms < 253_000_000_000_000 else str(time_ms)


@app.command("list")
def list_(topic: AnyTopic = "", as_json: AsJson = False) -> None:
    """Count letters by topic and reason, with those that wait to be resent, the oldest and the newest."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    with _letters() as letters:
        names = letters.topic_names(topic)
        with progress.counter("reading", "letters", _size(letters, names)) as advance:
            for name in names:
                for letter, done in letters.read_all(name, advance):
                    row = rows.setdefault(
                        (name, letter.reason),
                        {"topic": name, "reason": letter.reason, "letters": 0, "waiting": 0, "cut": 0, "attempts": 0}
                        | {"oldest": _time(letter.time_ms), "newest": "", "last_offset": 0},
                    )
                    row["letters"] += 1
                    row["waiting"] += not done
                    row["cut"] += letter.cut is not None
                    row["attempts"] = max(row["attempts"], letter.attempt)
                    row["newest"], row["last_offset"] = _time(letter.time_ms), letter.offset
    sorted_rows = [rows[key] for key in sorted(rows)]
    if as_json:
        console.as_json(sorted_rows)
    elif sorted_rows:
        console.table(sorted_rows)
    else:
        typer.echo("no dead letters")


@app.command()
def show(
    topic: OneTopic,
    offset: Annotated[int | None, typer.Argument(min=0, help="Offset of a letter; default: the newest.")] = None,
    reason: Reason = "",
    limit: Annotated[int, typer.Option(min=1, max=1_000, help="Maximum number of letters.")] = 10,
    full: Annotated[
        bool, typer.Option("--full", help=f"Show the whole value, not only {SHOWN_CHARS:,} characters.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show letters: position, reason, headers, key and value; bytes that are no text are escaped."""
    from collections import deque

    newest: deque[DeadLetter] = deque(maxlen=limit)
    with _letters() as letters:
        (name,) = letters.topic_names(topic)
        if offset is not None:
            newest += _at(letters, name, offset)
        else:
            with progress.counter("reading", "letters", _size(letters, [name])) as advance:
                newest.extend(letter for letter, _ in letters.read_all(name, advance) if reason in ("", letter.reason))
    if as_json:
        # ASCII only, because a letter may hold control characters.
        typer.echo(json.dumps([as_value(letter) for letter in newest]))
        return
    typer.echo("\n\n".join(as_text(letter, None if full else SHOWN_CHARS) for letter in newest) or "no dead letters")


def _at(letters: DeadLetterQueue, name: str, offset: int) -> list[DeadLetter]:
    """Return the letters at an offset, one of each partition that has it."""
    at_offset: list[DeadLetter] = []
    for partition, (begin, end) in letters.bounds(name).items():
        if begin <= offset < end:
            for batch in letters.read(name, partition, offset, offset + 1):
                at_offset += batch
    if not at_offset:
        raise InputError(f"{name} has no letter at offset {offset}; see `groundswell dlq list`")
    return at_offset


def as_text(letter: DeadLetter, limit: int | None) -> str:
    """Format a letter for people; `limit` is the number of characters shown of each value."""
    cut = f", cut: {safe(letter.cut)}" if letter.cut else ""
    lines = [
        f"{letter.topic} partition {letter.partition} offset {letter.offset}, written {_time(letter.time_ms)}",
        f"  {safe(letter.message) or 'no error message'}",
        f"  message of {_time(letter.timestamp_ms)}, {len(letter.value):,} bytes{cut}, attempt {letter.attempt}",
        f"  key    {safe(letter.key, limit)}",
        *(f"  header {safe(name, limit)}: {safe(value, limit)}" for name, value in letter.headers),
        f"  value  {safe(letter.value, limit)}",
    ]
    return "\n".join(lines)


def as_value(letter: DeadLetter) -> dict[str, Any]:
    """Return a letter as a JSON value; bytes are base64, the value also text if it is UTF-8."""
    return {
        "topic": letter.topic,
        "partition": letter.partition,
        "offset": letter.offset,
        "written": _time(letter.time_ms),
        "timestamp": _time(letter.timestamp_ms),
        "reason": letter.reason,
        "message": letter.message,
        "attempt": letter.attempt,
        "cut": letter.cut,
        "key_base64": None if letter.key is None else base64.b64encode(letter.key).decode(),
        "headers": [[name, base64.b64encode(value).decode()] for name, value in letter.headers],
        "value_base64": base64.b64encode(letter.value).decode(),
        "value": _utf8(letter.value),
    }


def _utf8(value: bytes) -> str | None:
    try:
        return value.decode()
    except UnicodeDecodeError:
        return None


@app.command()
def replay(
    topic: AnyTopic = "",
    reason: Reason = "",
    limit: Annotated[int, typer.Option(min=0, help="Maximum number of letters per topic; 0: all.")] = 0,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be sent.")] = False,
    as_json: AsJson = False,
) -> None:
    """Send refused messages to their input topics again, unchanged and in order; letters sent before are left out.

    A message that is still invalid becomes a new letter with a higher attempt, which the same replay does not send
    again. Events that were applied already do not count twice.
    """
    with _letters() as letters:
        names = letters.topic_names(topic)
        with progress.counter("sending", "letters", _size(letters, names)) as advance:
            options: dict[str, Any] = {
                "reason": reason or None,
                "limit": limit,
                "dry_run": dry_run,
                "progress": advance,
            }
            replayed = [letters.resend(name, **options) for name in names]
    if as_json:
        console.as_json(
            [
                {"topic": result.topic, "sent": result.sent, "left_out": result.left_out, "dry_run": dry_run}
                for result in replayed
            ]
        )
        return
    for result in replayed:
        typer.echo(f"{result.topic}: {result.sent:,} {'would be sent' if dry_run else 'sent'} again")
        for why, left in result.causes.items():
            more = ", …" if left.count > len(left.offsets) else ""
            typer.echo(f"  {left.count:,} left out because {why}: offsets {', '.join(map(str, left.offsets))}{more}")


@app.command()
def purge(
    topic: AnyTopic = "",
    before: Annotated[int | None, typer.Option(min=1, help="Letters below this offset, of one topic.")] = None,
    replayed: Annotated[
        bool, typer.Option("--replayed", help="Letters that were sent again, up to the first that was not.")
    ] = False,
    everything: Annotated[bool, typer.Option("--all", help="All letters.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Delete; without this, only show how many it would be.")] = False,
    as_json: AsJson = False,
) -> None:
    """Delete letters permanently."""
    if [before is not None, replayed, everything].count(True) != 1:
        raise typer.BadParameter("give one of --before OFFSET, --replayed and --all")
    if before is not None and not topic:
        raise typer.BadParameter("--before needs a TOPIC")
    deleted: dict[str, int] = {}
    with _letters() as letters:
        for name in letters.topic_names(topic):
            bounds = letters.bounds(name)
            if replayed:
                marks = {part: position.offset for part, position in letters.positions(name).items()}
            else:
                marks = {part: end if before is None else before for part, (_, end) in bounds.items()}
            deleted[name] = letters.purge(name, marks, really=yes)
    if as_json:
        console.as_json([{"topic": name, "letters": count, "deleted": yes} for name, count in deleted.items()])
    else:
        for name, count in deleted.items():
            typer.echo(f"{name}: {count:,} {'deleted' if yes else 'would be deleted'}")
    if not yes:
        raise InputError("nothing was deleted; give --yes to delete them")
