"""Values that a shell completes (`groundswell --install-completion`): each function gets what is typed so far.

They are quiet: without a worker or with invalid settings there is nothing to complete.
"""

from __future__ import annotations

from streams.errors import GroundswellError

USERS = 200
WAIT_S = 1.0


def measures(incomplete: str) -> list[str]:
    """Return the measures of a ranking."""
    from streams.shard.user_reads import MEASURES

    return _beginning(incomplete, *MEASURES, "growth")


def tiers(incomplete: str) -> list[str]:
    """Return the tiers of the settings."""
    from streams.settings.settings import Settings
    from streams.settings.tiers import Tiers

    try:
        return _beginning(incomplete, *Tiers(Settings.load().tiers).bounds)
    except GroundswellError:
        return []


def users(incomplete: str) -> list[str]:
    """Return the first users by reach of a running worker."""
    import json
    from urllib.request import Request, urlopen

    from streams.commands._worker import address_of
    from streams.settings.settings import Settings

    try:
        settings = Settings.load()
        address = f"{address_of(settings)}/api/v1/top?limit={USERS}"
        with urlopen(Request(address, headers=settings.web_headers()), timeout=WAIT_S) as answer:  # noqa: S310 - the worker's own address
            return _beginning(incomplete, *(entry["user"] for entry in json.load(answer)["top"]))
    except (GroundswellError, OSError, ValueError):
        return []


def inputs(incomplete: str) -> list[str]:
    """Return the input topics as commands name them."""
    return _beginning(incomplete, "create", "follow", "share")


def reasons(incomplete: str) -> list[str]:
    """Return the reasons of dead letters."""
    from streams.messages.events import REASONS

    return _beginning(incomplete, *REASONS)


def topics(incomplete: str) -> list[str]:
    """Return the names of all topics."""
    from streams.kafka.topics import Topics
    from streams.settings.settings import Settings

    try:
        return _beginning(incomplete, *(spec.name for spec in Topics(Settings.load()).all()))
    except GroundswellError:
        return []


def maps(incomplete: str) -> list[str]:
    """Return the mappings that ship."""
    from streams.connect.mapping import shipped

    return _beginning(incomplete, *shipped())


def outputs(incomplete: str) -> list[str]:
    """Return the output topics as commands name them."""
    return _beginning(incomplete, "score", "topic", "alert", "outcome")


def diffusions(incomplete: str) -> list[str]:
    """Return the models of diffusion."""
    return _beginning(incomplete, "ic", "lt")


def seed_models(incomplete: str) -> list[str]:
    """Return what lists of seeds are chosen by."""
    return _beginning(incomplete, "reach", "ic")


def difficulties(incomplete: str) -> list[str]:
    """Return the difficulties of a generated stream."""
    from model.simulation.population import DIFFICULTIES

    return _beginning(incomplete, *DIFFICULTIES)


def worlds(incomplete: str) -> list[str]:
    """Return what `train --simulate` generates."""
    return [*difficulties(incomplete), *_beginning(incomplete, "many")]


def _beginning(incomplete: str, *values: str) -> list[str]:
    return [value for value in values if value.startswith(incomplete)]
