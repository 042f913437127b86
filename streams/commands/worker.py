"""`groundswell worker`: run one worker until a signal or an error ends it."""

from __future__ import annotations

from typing import Annotated

import typer

ALERT_TOPICS = (
    "Topics of alerts, separated by commas: TOPIC, community:NAME or * for any content, each with =N for a budget of "
    "its own; instead of GROUNDSWELL_ALERT_TOPICS."
)


def worker(
    alert_topics: Annotated[str | None, typer.Option(help=ALERT_TOPICS, show_default=False)] = None,
) -> None:
    """Run one worker: read the input topics, maintain the graph, publish scores and alerts.

    Creates missing topics. Exits with 0 on SIGTERM or Ctrl-C, with 1 and one line on an error. Settings come from the
    environment, see `groundswell config`.
    """
    from streams.settings import kernel_cache, sources
    from streams.settings.settings import Settings
    from streams.telemetry import logs
    from streams.worker.run import run

    settings = Settings.load(**({} if alert_topics is None else {"alert_topics": alert_topics}))
    logs.setup(settings)
    sources.warn(Settings)
    kernel_cache.prepare(settings.datadir)
    run(settings)
