"""`groundswell worker`: run one worker until a signal or an error ends it."""

from __future__ import annotations


def worker() -> None:
    """Run one worker: read the input topics, maintain the graph, publish scores and alerts.

    Creates missing topics. Exits with 0 on SIGTERM or Ctrl-C, with 1 and one line on an error. Settings come from the
    environment, see `groundswell config`.
    """
    from streams.settings import kernel_cache, sources
    from streams.settings.settings import Settings
    from streams.telemetry import logs
    from streams.worker.run import run

    settings = Settings.load()
    logs.setup(settings)
    sources.warn(Settings)
    kernel_cache.prepare(settings.datadir)
    run(settings)
