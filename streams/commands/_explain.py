"""`groundswell model explain`: the parts of a user's score, from a running worker or from its state on disk."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote

import typer

from streams.commands import _completion, _worker
from streams.errors import InputError, StateError, WorkerError
from streams.telemetry import console

if TYPE_CHECKING:
    from streams.settings.settings import Settings

SHOWN = 20
UNKNOWN_USER = "no such user, or the user was forgotten"
GROUPS = {
    "history": "reach of past posts",
    "posts": "number and times of posts",
    "received": "recent shares of their posts, and by how many users",
    "made": "shares that they made",
    "audience": "followers, following, shares that reached others through them",
    "standing": "their counts that the layers read",
    "neighbours": "all users and contents in their windows",
}


def explain(
    user: Annotated[str, typer.Argument(autocompletion=_completion.users, help="The id of a user.")],
    worker: Annotated[str, typer.Option(help="Address of the worker to ask, such as http://127.0.0.1:6066.")] = "",
    model: Annotated[str, typer.Option(help="For a state on disk: folder of another artifact.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Explain a user's score: the shares of neighbours and features in it, and what changed since the previous score.

    Asks the running worker that uses DATADIR. If none runs, loads the whole state in DATADIR, which takes as much
    memory as a worker. Only a running worker has the previous score.
    """
    from streams.settings.settings import Settings

    settings = Settings.load()
    answer = ask(settings, worker, user) if worker else find(settings, user, model)
    if as_json:
        console.as_json(answer)
    else:
        show(answer)


def find(settings: Settings, user: str, model: str = "") -> dict[str, Any]:
    """Explain by the worker that uses the data folder; if none runs, by the state in the folder.

    Raises:
        StateError: a worker uses the folder and does not respond, or there is no state.
        InputError: no user has this id.
    """
    from streams.worker.data_dir import lock_holder

    process = lock_holder(settings.datadir)
    if process is None:
        return read(settings, user, model)
    if model:
        raise InputError(
            f"{settings.datadir} is in use by a worker, which explains with its own model: leave out --model"
        )
    try:
        return ask(settings, _worker.address_of(settings), user)
    except WorkerError as error:
        raise StateError(
            f"{settings.datadir} is in use by a worker (process {process}): {error}; give its address with --worker, "
            "or stop it"
        ) from error


def ask(settings: Settings, address: str, user: str) -> dict[str, Any]:
    """Ask a worker for an explanation.

    Raises:
        WorkerError: the worker does not respond, or reports an error.
        InputError: the address is invalid, or the worker has no such user.
    """
    answer = _worker.ask(settings, address, f"/api/v1/users/{quote(user, safe='')}?explain=1")
    return {**answer, "from": address}


def read(settings: Settings, user: str, model: str = "") -> dict[str, Any]:
    """Explain by the state on disk, without changing it.

    Raises:
        StateError: there is no state of the user's shard.
        InputError: no user has this id.
    """
    from graphstate.types import owner
    from model.artifact import Artifact
    from streams.messages.headers import rfc3339
    from streams.shard.graph_view import graph_spec
    from streams.shard.shard import Shard
    from streams.worker.data_dir import state_folder
    from streams.worker.inspection.explanation import explain as explain_user
    from streams.worker.inspection.explanation import read_inputs

    number = owner(user, settings.shards)
    folder = state_folder(settings.datadir, number)
    if not folder.is_dir():
        raise StateError(
            f"{settings.datadir} has no state of shard {number}, the shard of {user}; check GROUNDSWELL_DATADIR and "
            "GROUNDSWELL_SHARDS, or ask a worker with --worker"
        )
    where = model or settings.model
    artifact = Artifact.load(Path(where)) if where else Artifact.default()
    spec = graph_spec(artifact.config, retention_s=settings.retention_s, lateness_s=settings.lateness_s)
    shard = Shard.open(folder, artifact, replace(spec, shards=settings.shards, shard=number), read_only=True)
    try:
        scored = shard.graph.meta.get(b"model", b"").decode()
        seen = read_inputs(shard, user)
    finally:
        shard.close()
    if seen is None:
        raise InputError(f"{UNKNOWN_USER}: {user}")
    answer = explain_user(seen)
    answer["as_of"] = rfc3339(answer["as_of"])
    note = None
    if scored and scored != artifact.version:
        note = (
            f"the worker scored with {scored}, this explanation is by {artifact.version}; choose another with --model"
        )
    return {**answer, "from": str(folder), "note": note}


def show(answer: dict[str, Any]) -> None:
    """Print an explanation for a person."""
    explanation = answer["explanation"]
    console.line(
        f"{answer['user']}: reach {console.people(answer['reach'])}, percentile {answer['percentile']:.1f}, "
        f"as of {answer['as_of']}, model {answer['model']}\nfrom {answer['from']}"
    )
    console.note_calibration([answer])
    if answer.get("note"):
        typer.echo(f"note: {answer['note']}")
    if not explanation["settled"]:
        typer.echo("note: the shard has changes to process; the score will be this once it has processed them")
    stranger = explanation["stranger"]["reach"]
    typer.echo(
        f"a user without any data has reach {console.people(stranger)}; difference that each part makes to the score:\n"
    )
    rows = [(name, GROUPS.get(name, ""), effect) for name, effect in explanation["groups"].items()]
    rows += [(f"  {name}", f"{effect['edges']:,} edges", effect) for name, effect in explanation["relations"].items()]
    console.table([{"part": name, **_effect(effect), "what": about} for name, about, effect in rows])
    if explanation["neighbours"]:
        neighbours = explanation["neighbours"][:SHOWN]
        shown = [line for neighbour in neighbours for line in (_line(neighbour), *_second_hop(neighbour))]
        typer.echo("\neach neighbour (attention and contribution: first layer, second layer)")
        console.table(shown)
        more = len(explanation["neighbours"]) - SHOWN + explanation["unshown"]
        if more > 0:
            typer.echo(f"and {more} more; --json has up to 64 of them")
    elif explanation["unshown"]:
        typer.echo(f"\n{explanation['unshown']:,} neighbours are too many to compute each one's part")
    features = sorted(explanation["features"].items(), key=lambda pair: -abs(pair[1]["log_reach"]))
    typer.echo("\neach feature: difference to the score with the value of a user without any data")
    console.table([{"feature": name, "value": effect["value"], **_effect(effect)} for name, effect in features])
    typer.echo("")
    _show_change(explanation["change"])


def _effect(effect: dict[str, float]) -> dict[str, str]:
    return {"people": f"{effect['people']:+.3f}", "log reach": f"{effect['log_reach']:+.4f}"}


def _line(neighbour: dict[str, Any], depth: int = 0) -> dict[str, str]:
    return {
        "relation": "  " * depth + neighbour["relation"],
        "from": neighbour["id"],
        "since": neighbour["since"][:16].replace("T", " "),
        "attention": " ".join(f"{value:.3f}" for value in neighbour["attention"]),
        "carried": " ".join(f"{value:+.4f}" for value in neighbour["carried"]),
        **_effect(neighbour),
    }


def _second_hop(neighbour: dict[str, Any]) -> list[dict[str, str]]:
    return [_line(inner, 1) for inner in neighbour.get("neighbours", ())[:3]]


def _show_change(change: dict[str, Any]) -> None:
    """Print what changed since the previous score."""
    published, before = change["published"], change["before"]
    if published:
        typer.echo(
            f"last published score: reach {console.people(published['reach'])}, "
            f"percentile {published['percentile']:.1f}"
        )
    if before is None:
        typer.echo(f"previous score: {change['why']}")
        return
    typer.echo(
        f"previous score: reach {console.people(before['reach'])}, percentile {before['percentile']:.1f}, as of "
        f"{before['as_of']}, model {before['model']}; since then {change['people']:+.3f} people"
    )
    for name, part in (("own features", change["own"]), ("neighbours and standing", change["rest"])):
        if part is not None:
            typer.echo(f"  {part['people']:+.3f} people from {name}")
    for name, feature in change["features"].items():
        typer.echo(f"  {name} from {feature['before']} to {feature['now']}: {feature['people']:+.3f} people")
    for key in ("arrived", "gone"):
        for relation, source in change[key] or ():
            console.line(f"  {key}: {relation} {source}")
