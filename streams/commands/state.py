"""`groundswell state`: inspect and verify the state on disk, make and restore checkpoints."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streams.commands import _completion
from streams.errors import InputError, StateError
from streams.telemetry import console, progress

if TYPE_CHECKING:
    from streams.settings.settings import Settings

app = typer.Typer(
    no_args_is_help=True, add_completion=False, rich_markup_mode=None, help="The state on disk and its checkpoints."
)

AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
OneShard = Annotated[int | None, typer.Option("--shard", min=0, help="Only this shard; default: all.")]


def _folders(settings: Settings, shard: int | None) -> dict[int, Path]:
    """Return the shard folders in DATADIR by number."""
    from streams.worker.data_dir import check_readable, shard_folders

    check_readable(settings.datadir)
    folders = shard_folders(settings.datadir)
    found = {number: folder for number, folder in folders.items() if shard in (None, number)}
    if not found:
        which = "a shard" if shard is None else f"shard {shard}"
        raise StateError(f"{settings.datadir} has no state of {which}; check GROUNDSWELL_DATADIR")
    return found


def _time(seconds: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


@app.command()
def inspect(
    shard: OneShard = None,
    count: Annotated[bool, typer.Option(help="Also count users, contents and edges, which loads the graph.")] = True,
    as_json: AsJson = False,
) -> None:
    """Show what each shard's folder holds; works beside a running worker."""
    from graphstate.queries import state_verification
    from streams.settings.settings import Settings

    settings = Settings.load()
    rows = []
    for number, folder in _folders(settings, shard).items():
        rows.append({"shard": number, **state_verification.inspect(folder, count=count), "folder": str(folder)})
    if as_json:
        console.as_json(rows)
        return
    for row in rows:
        edges, clock = row["edges"], row["clock"]
        row["edges"] = None if edges is None else sum(edges.values())
        row["clock"] = None if clock is None else _time(clock / 1e6)
        row.update(row.pop("offsets"))
        del row["spec"]
    console.table(rows)


@app.command()
def verify(shard: OneShard = None, as_json: AsJson = False) -> None:
    """Verify checksums of all rows and compare counters with edges; exit code 1 if a difference is found."""
    from graphstate.queries import state_verification
    from streams.settings.settings import Settings

    findings = {
        number: list(state_verification.verify(folder)) for number, folder in _folders(Settings.load(), shard).items()
    }
    if as_json:
        console.as_json([{"shard": number, "ok": not wrong, "wrong": wrong} for number, wrong in findings.items()])
    else:
        for number, wrong in findings.items():
            typer.echo(f"{'WRONG' if wrong else 'ok   '}  shard {number}")
            for line in wrong:
                console.line(f"       {line}")
    if any(findings.values()):
        raise typer.Exit(1)


@app.command()
def checkpoints(shard: OneShard = None, as_json: AsJson = False) -> None:
    """List checkpoints, newest first."""
    from graphstate.errors import DamagedError
    from streams.settings.settings import Settings
    from streams.worker.checkpoints import repository

    settings = Settings.load()
    rows: list[dict[str, Any]] = []
    for number in range(settings.shards) if shard is None else (shard,):
        kept = repository(settings, number)
        for checkpoint in kept.ids():
            row: dict[str, Any] = {"shard": number, "checkpoint": checkpoint, "created": None, "next_offset": None}
            row |= {"format": None, "bytes": None, "files": None, "model": None, "wrong": ""}
            try:
                about = kept.load(checkpoint)
            except DamagedError as error:
                row["wrong"] = str(error)
            else:
                row |= {"created": _time(about.created_s), "next_offset": about.next_offset, "format": about.format}
                row |= {"bytes": about.size, "files": len(about.files), "model": about.artifact}
            rows.append(row)
    if as_json:
        console.as_json(rows)
    elif rows:
        console.table(rows)
    else:
        typer.echo(f"no checkpoints in {settings.checkpoints}")


@app.command()
def checkpoint(shard: OneShard = None, as_json: AsJson = False) -> None:
    """Make a checkpoint of a stopped worker's state; a running worker makes its own."""
    from streams.settings.settings import Settings
    from streams.worker.checkpoints import repository, save_checkpoint
    from streams.worker.data_dir import lock_data_dir

    settings = Settings.load()
    folders, made = _folders(settings, shard), []
    try:
        lock = lock_data_dir(settings.datadir)
    except StateError as error:
        every_s = settings.checkpoint_every_s
        line = f"{error}; with GROUNDSWELL_CHECKPOINTS a running worker makes a checkpoint every {every_s:.0f} s"
        raise StateError(line) from error
    with lock:
        for number, folder in folders.items():
            saved = save_checkpoint(settings, repository(settings, number), folder, number)
            row = {"shard": number, "checkpoint": saved.id, "next_offset": saved.manifest.next_offset}
            made.append({**row, "bytes": saved.manifest.size, "uploaded_bytes": saved.uploaded_bytes})
    if as_json:
        console.as_json(made)
    else:
        console.table(made)


@app.command()
def restore(
    shard: OneShard = None,
    at: Annotated[str, typer.Option("--at", help="Id of the checkpoint; default: the newest complete one.")] = "",
    force: Annotated[bool, typer.Option("--force", help="Replace an existing state.")] = False,
    as_json: AsJson = False,
) -> None:
    """Restore a checkpoint, completely or not at all; the worker must be stopped."""
    from streams.settings.settings import Settings
    from streams.worker.checkpoints import restore_checkpoint
    from streams.worker.data_dir import lock_data_dir, state_folder

    settings = Settings.load()
    if at and shard is None and settings.shards > 1:
        raise InputError("--at names a checkpoint of one shard: give the shard with --shard")
    rows = []
    with lock_data_dir(settings.datadir), progress.stages(progress.BYTES, quiet=as_json) as report:
        for number in range(settings.shards) if shard is None else (shard,):
            folder = state_folder(settings.datadir, number)
            name, about = restore_checkpoint(settings, number, folder, at=at, force=force, progress=report)
            row = {"shard": number, "checkpoint": name, "next_offset": about.next_offset}
            rows.append({**row, "created": _time(about.created_s), "bytes": about.size, "folder": str(folder)})
    if as_json:
        console.as_json(rows)
    else:
        console.table(rows)


@app.command()
def find(
    user: Annotated[str, typer.Argument(autocompletion=_completion.users, help="The id of a user.")],
    topics: Annotated[bool, typer.Option("--topics", help="Also read all topics from beginning to end.")] = False,
    as_json: AsJson = False,
) -> None:
    """Search a person's data in the files of DATADIR, checkpoints and topics; works beside a running worker."""
    from dataclasses import asdict

    from streams.operations import personal_data_search
    from streams.settings.settings import Settings

    settings = Settings.load()
    shards, files = (
        personal_data_search.search_shards(settings, user),
        personal_data_search.search_files(settings.datadir, user),
    )
    kept = list(personal_data_search.search_checkpoints(settings, user)) if settings.checkpoints else []
    with progress.stages("messages", quiet=as_json or not topics) as report:
        read = list(personal_data_search.search_topics(settings, user, report)) if topics else []
    if as_json:
        about: dict[str, Any] = {"shards": [asdict(shard) for shard in shards], "files": asdict(files)}
        about["checkpoints"] = [asdict(in_checkpoint) for in_checkpoint in kept] if settings.checkpoints else None
        about["topics"] = [{**asdict(topic), "until_s": topic.until_s} for topic in read] if topics else None
        console.as_json({"user": user, **about})
        return
    for lines in personal_data_search.tables(settings, shards, files, kept, read):
        if isinstance(lines, str):
            typer.echo(lines)
        else:
            console.table(lines)


@app.command()
def reshard(
    to: Annotated[int, typer.Option("--to", min=1, max=64, help="New number of shards.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would be done.")] = False,
    as_json: AsJson = False,
) -> None:
    """Change the number of shards; all workers must be stopped. If it is interrupted, run it again.

    Rewrites the whole mutations log and rebuilds all shards in this process. Run it with the workers' settings; set
    GROUNDSWELL_SHARDS for the workers afterwards.
    """
    import logging
    from dataclasses import asdict

    from streams.operations.reshard import reshard as move_shards
    from streams.settings.settings import Settings

    # The clients retry what they warn of; what fails for good is raised as an error.
    logging.getLogger("kafka").setLevel(logging.CRITICAL)
    with progress.stages() as on_progress:
        report = move_shards(Settings.load(), to, on_progress, dry_run=dry_run)
    if as_json:
        console.as_json(asdict(report))
        return
    if not report.done:
        typer.echo(f"would move {report.records:,} records of {report.old} shard(s) to {report.new}")
        return
    if report.old != report.new:
        typer.echo(
            f"{report.events:,} events moved from {report.old} shard(s) to {report.new} ({report.seconds:.1f} s)"
        )
        for folder in report.moved:
            typer.echo(f"the old state is in {folder} and can be removed")
    typer.echo(f"number of shards: {report.new}; set GROUNDSWELL_SHARDS={report.new} for every worker")
