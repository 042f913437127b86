"""`groundswell demo`: run Kafka, a worker and a live stream on this machine, and remove all files afterwards."""

from __future__ import annotations

import asyncio
import shutil
import signal
import socket
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from streams.errors import InputError
from streams.telemetry import console

if TYPE_CHECKING:
    from streams.demo.session import Plan, Summary
    from streams.settings.settings import Settings

ELSEWHERE = ("security_protocol", "group", "instance", "prefix", "checkpoints")
"""Settings of a worker outside the demo, which are reset to their defaults; broker and datadir are replaced."""


KAFKA_PORT = 9092
"""Kafka's usual port, which clients and examples have as their default; if it is taken the demo uses a free one."""


def demo(
    rate: Annotated[float, typer.Option(min=0, help="Events per second; 0: no limit.")] = 200,
    minutes: Annotated[float, typer.Option(min=0, help="Minutes of live stream; 0: until Ctrl-C.")] = 0,
    port: Annotated[
        int, typer.Option(min=0, max=65_535, help="Web port; 0: 6066, or a free one if that is taken.")
    ] = 0,
    replay: Annotated[Path | None, typer.Option(help="Send this event file instead, and end after it.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for scores.parquet: all scores at the end.")] = (None),
    seed: Annotated[int, typer.Option(min=0, help="Seed of the generated stream.")] = 0,
    analyst: Annotated[bool, typer.Option(help="Run an analyst beside the worker.")] = True,
    open_page: Annotated[bool, typer.Option("--open", help="Open the live page in a browser.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Only print one JSON object at the end.")] = False,
) -> None:
    """Run Kafka, a worker and a generated live stream on this machine, and show scores and alerts.

    Needs no installed Kafka or Java and removes all its files. Sends two weeks of history at full speed, so that there
    are meaningful scores, then a live stream at --rate, with a breakout in the first half minute. Event time passes
    faster than the clock and ends now. Ctrl-C ends it.
    """
    from streams.demo.session import Plan
    from streams.kafka.event_producer import silence_aiokafka_log

    silence_aiokafka_log()
    if replay is not None:
        from streams.messages.files import event_files

        event_files.check([replay])
    if out is not None:
        from streams.offline import output_places

        output_places.check_folder(out)
    plan = Plan(rate, minutes or None, replay, seed, analyst, open_page)
    _check(plan, port, out)
    # SIGTERM before the event loop runs must clean up as Ctrl-C does.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        summary = _run(plan, port, out, quiet=as_json)
    except KeyboardInterrupt:
        return
    if as_json:
        console.as_json(summary.as_dict())
        return
    console.table([{"": name, " ": value} for name, value in summary.as_dict().items()])


def _check(plan: Plan, port: int, out: Path | None) -> None:
    """Check settings, model and the folder for results before Kafka is started."""
    from streams.worker.run import check_artifact

    check_artifact(_settings(plan, "localhost:9092", Path(), port))
    if out is not None:
        out.mkdir(parents=True, exist_ok=True)


def _run(plan: Plan, port: int, out: Path | None, *, quiet: bool) -> Summary:
    from rich.console import Console

    from streams.demo.session import play
    from streams.demo.view import view
    from streams.embedded import EmbeddedKafka
    from streams.kafka import topics

    folder = Path(tempfile.mkdtemp(prefix="groundswell-demo-"))
    terminal = Console()
    if not quiet:
        terminal.print("starting Kafka")
    try:
        with EmbeddedKafka(port=KAFKA_PORT) as kafka:
            settings = _settings(plan, kafka.address, folder, port)
            with topics.admin(settings, timeout_s=30) as client:
                topics.create(client, topics.Topics(settings).all())
            shown = view(terminal, quiet=quiet)
            try:
                summary = asyncio.run(play(plan, settings, folder, shown))
            finally:
                shown.close()
            if out is not None:
                _write_scores(settings, out)
            return summary
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _settings(plan: Plan, address: str, folder: Path, port: int) -> Settings:
    """Return the environment's settings without those of another Kafka, state or checkpoints.

    Settings of scoring (model, device, shards, ...) and of access to the pages are kept.
    """
    from streams.settings.settings import Settings

    own: dict[str, Any] = {
        name: field.default
        for name, field in Settings.model_fields.items()
        if name in ELSEWHERE or name.startswith(("sasl_", "ssl_"))
    }
    own |= {"broker": address, "datadir": folder / "state"}
    if plan.replay is not None:
        own["retention_s"] = 0
    settings = Settings.load(**own)
    web_port = _port(settings, port)
    analyst_port = _port(settings, 0, settings.analyst_port)
    url = f"http://{settings.web_host}:{analyst_port}/" if plan.analyst else ""
    return settings.model_copy(update={"web_port": web_port, "analyst_port": analyst_port, "analyst_url": url})


def _port(settings: Settings, given: int, configured: int | None = None) -> int:
    """Return the given port; without one the configured one (the web port), or a free one if that is taken."""
    for port in (given,) if given else (settings.web_port if configured is None else configured, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((settings.web_host, port))
            except OSError as error:
                if given:
                    raise InputError(f"port {given} is taken ({error.strerror}); give another --port") from error
            else:
                return int(probe.getsockname()[1])
    raise InputError(f"no free port on {settings.web_host}; set GROUNDSWELL_WEB_HOST to an address of this machine")


def _write_scores(settings: Settings, out: Path) -> None:
    """Write every live user's score from the worker's state; the topic has only scores that changed enough."""
    import pyarrow.parquet as pq

    from model.artifact import Artifact
    from streams.messages.files.result_tables import score_table
    from streams.offline.replay import cluster
    from streams.shard.graph_view import graph_spec

    artifact = Artifact.load(Path(settings.model)) if settings.model else Artifact.default()
    spec = graph_spec(artifact.config, retention_s=settings.retention_s, lateness_s=settings.lateness_s)
    with cluster(artifact, spec, settings.datadir, settings.shards, read_only=True) as opened:
        out.mkdir(parents=True, exist_ok=True)
        pq.write_table(score_table(*opened.scores()), out / "scores.parquet")
