"""`groundswell demo`: everything on this machine, from an empty folder to a live stream and back to nothing."""

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
"""Settings that say where a worker that is no demo works; broker and datadir are replaced, these are as if not set."""


def demo(
    rate: Annotated[float, typer.Option(min=0, help="Events per second; 0: as fast as it goes.")] = 200,
    minutes: Annotated[float, typer.Option(min=0, help="End after so long of live stream; 0: at Ctrl-C.")] = 0,
    port: Annotated[int, typer.Option(min=0, max=65_535, help="Web port; 0: 6066, or any if that is taken.")] = 0,
    replay: Annotated[Path | None, typer.Option(help="Send this event file instead; ends when it is through.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for scores.parquet: every score as the worker left it.")] = (
        None
    ),
    seed: Annotated[int, typer.Option(min=0, help="Another seed, another stream.")] = 0,
    as_json: Annotated[bool, typer.Option("--json", help="Show nothing; print one JSON object at the end.")] = False,
) -> None:
    """Start Kafka, a worker and a generated live stream on this machine, and watch.

    Nothing needs to be installed and nothing is left behind. First some weeks of history are sent
    quickly, so that scores mean something, then the stream goes on live at --rate. Ctrl-C ends it.
    """
    from streams.demo.session import Plan
    from streams.kafka.event_producer import hush

    hush()
    if replay is not None:
        from streams.messages.files import event_files

        event_files.check([replay])
    if out is not None:
        from streams.offline import output_places

        output_places.check_folder(out)
    plan = Plan(rate, minutes or None, replay, seed)
    _check(plan, port, out)
    # A SIGTERM before there is an event loop must clean up just as Ctrl-C does.
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
    """Raise what is wrong with the settings, the model or the folder for results, before Kafka is started."""
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
        with EmbeddedKafka() as kafka:
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
    """The environment's settings without those that lead to another Kafka, state or checkpoints.

    What the demo scores with (model, device, shards, ...) stays, and so does who may look at its pages.
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
    return settings.model_copy(update={"web_port": _port(settings, port)})


def _port(settings: Settings, wanted: int) -> int:
    """The web port: the wanted one, else the usual one or any that is free."""
    for port in (wanted,) if wanted else (settings.web_port, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((settings.web_host, port))
            except OSError as error:
                if wanted:
                    raise InputError(f"port {wanted} is taken ({error.strerror}); give another --port") from error
            else:
                return int(probe.getsockname()[1])
    raise InputError(f"no free port on {settings.web_host}; set GROUNDSWELL_WEB_HOST to an address of this machine")


def _write_scores(settings: Settings, out: Path) -> None:
    """Every live user's score from the state that the worker left; a topic has only those that moved enough."""
    import pyarrow.parquet as pq

    from model.artifact import Artifact
    from streams.offline.replay import cluster, score_table
    from streams.shard.graph_view import graph_spec

    artifact = Artifact.load(Path(settings.model)) if settings.model else Artifact.default()
    spec = graph_spec(artifact.config, retention_s=settings.retention_s, lateness_s=settings.lateness_s)
    with cluster(artifact, spec, settings.datadir, settings.shards, read_only=True) as opened:
        out.mkdir(parents=True, exist_ok=True)
        pq.write_table(score_table(opened), out / "scores.parquet")
