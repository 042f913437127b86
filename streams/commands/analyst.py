"""`groundswell analyst`: run the analyst until a signal or an error ends it."""

from __future__ import annotations


def analyst() -> None:
    """Run the analyst: follow the mutations log, hold the whole graph, publish centralities, communities and seeds.

    Rebuilds the graph from the log at each start. Exits with 0 on SIGTERM or Ctrl-C, with 1 and one line on an error.
    """
    from streams.analyst.run import run
    from streams.settings import sources
    from streams.settings.settings import Settings
    from streams.telemetry import logs

    settings = Settings.load()
    logs.setup(settings)
    sources.warn(Settings)
    run(settings)
