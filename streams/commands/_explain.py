"""`groundswell model explain`: what carries a user's score, from a running worker or from the state it left."""

from __future__ import annotations

import json
from dataclasses import replace
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlsplit
from urllib.request import Request

import typer

from streams.errors import InputError, StateError, WorkerError, one_line
from streams.settings.direct_http import urlopen
from streams.telemetry import console

if TYPE_CHECKING:
    from streams.settings.settings import Settings

ANSWER_S = 15.0
SHOWN = 20
NOBODY = "no such user, or one who was forgotten"
GROUPS = {
    "history": "reach of past posts",
    "posts": "how much and when they post",
    "received": "shares that their posts got, lately and from how many",
    "made": "what they share themselves",
    "audience": "followers, following, shares that came through them",
    "standing": "counts of theirs that the layers read",
    "neighbours": "everybody in their windows",
}


def explain(
    user: Annotated[str, typer.Argument(help="The id of a user.")],
    worker: Annotated[str, typer.Option(help="Ask the worker at this address, as http://127.0.0.1:6066.")] = "",
    model: Annotated[str, typer.Option(help="For a state on disk: this artifact, not the configured one.")] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """What carries a user's score: neighbours, features, and what changed since the score before.

    Asks the worker that has DATADIR, if one runs; else reads the state there, which is loaded whole and takes as much
    memory as a worker. What was published before the last time only a running worker remembers.
    """
    from streams.settings.settings import Settings

    settings = Settings.load()
    found = ask(settings, worker, user) if worker else find(settings, user, model)
    if as_json:
        console.as_json(found)
    else:
        show(found)


def find(settings: Settings, user: str, model: str = "") -> dict[str, Any]:
    """The answer of the worker that has the data folder, else of the folder itself.

    Raises:
        StateError: a worker has the folder and does not answer, or there is no state.
        InputError: nobody has this id.
    """
    from streams.worker.data_dir import lock_holder

    process = lock_holder(settings.datadir)
    if process is None:
        return read(settings, user, model)
    if model:
        raise InputError(
            f"{settings.datadir} is in use by a worker, which explains by its own model: leave out --model"
        )
    try:
        return ask(settings, _address(settings), user)
    except WorkerError as error:
        raise StateError(
            f"{settings.datadir} is in use by a worker (process {process}): {error}; say with --worker where it "
            "listens, or stop it"
        ) from error


def _address(settings: Settings) -> str:
    """Where a worker with these settings listens."""
    host = {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(settings.web_host, settings.web_host)  # noqa: S104 - is looked for
    return f"http://[{host}]:{settings.web_port}" if ":" in host else f"http://{host}:{settings.web_port}"


def ask(settings: Settings, address: str, user: str) -> dict[str, Any]:
    """The answer of a worker.

    Raises:
        WorkerError: it does not answer, or cannot now.
        InputError: the address is none, or the worker has no such user.
    """
    if urlsplit(address).scheme not in {"http", "https"}:
        raise InputError(f"{address} is no address of a worker: write it as http://127.0.0.1:6066")
    path = f"{address.rstrip('/')}/api/v1/users/{quote(user, safe='')}?explain=1"
    try:
        request = Request(path, headers=settings.web_headers())  # noqa: S310 - checked above
        with urlopen(request, ANSWER_S) as answer:
            found: dict[str, Any] = json.load(answer)
    except HTTPError as error:
        said = _said(error)
        if error.code == 404:
            raise InputError(
                f"the worker at {address} says: {said}; another worker may have the user's shard"
            ) from error
        raise WorkerError(f"the worker at {address} says: {said}") from error
    except (URLError, HTTPException, OSError, ValueError) as error:
        why = one_line(error.reason if isinstance(error, URLError) and isinstance(error.reason, OSError) else error)
        raise WorkerError(f"there is no answer from {address} ({why})") from error
    return {**found, "from": address}


def _said(error: HTTPError) -> str:
    try:
        return str(json.load(error)["error"])
    except (ValueError, KeyError, TypeError):
        return f"{error.code} {error.reason}"


def read(settings: Settings, user: str, model: str = "") -> dict[str, Any]:
    """The answer by the state on disk, which is only read.

    Raises:
        StateError: there is no state of the user's shard.
        InputError: nobody has this id.
    """
    from graphstate.types import owner
    from model.artifact import Artifact
    from streams.messages.headers import rfc3339
    from streams.shard.graph_view import graph_spec
    from streams.shard.shard import Shard
    from streams.worker.data_dir import state_folder
    from streams.worker.inspection.explanation import explain as work_out
    from streams.worker.inspection.explanation import read_inputs

    number = owner(user, settings.shards)
    folder = state_folder(settings.datadir, number)
    if not folder.is_dir():
        raise StateError(
            f"there is no state of shard {number}, which has {user}, in {settings.datadir}; are GROUNDSWELL_DATADIR "
            "and GROUNDSWELL_SHARDS right? Or ask a worker with --worker"
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
        raise InputError(f"{NOBODY}: {user}")
    found = work_out(seen)
    found["as_of"] = rfc3339(found["as_of"])
    note = None
    if scored and scored != artifact.version:
        note = (
            f"the worker scored by {scored}, this is what {artifact.version} makes of its graph; --model names another"
        )
    return {**found, "from": str(folder), "note": note}


def show(found: dict[str, Any]) -> None:
    """Print an answer for a person."""
    told = found["explanation"]
    console.line(
        f"{found['user']}: reach {found['reach']:.2f}, percentile {found['percentile']:.1f}, as of {found['as_of']}, "
        f"model {found['model']}\nfrom {found['from']}"
    )
    if found.get("note"):
        typer.echo(f"note: {found['note']}")
    if not told["settled"]:
        typer.echo("note: the shard is catching up; this is what the score will be once it has")
    stranger = told["stranger"]["reach"]
    typer.echo(f"a stranger has reach {stranger:.2f}; what the score has more than it would have without:\n")
    rows = [(name, GROUPS.get(name, ""), worth) for name, worth in told["groups"].items()]
    rows += [(f"  {name}", f"{worth['edges']:,} edges", worth) for name, worth in told["relations"].items()]
    console.table([{"part": name, **_worth(worth), "what": what} for name, what, worth in rows])
    if told["neighbours"]:
        shown = [line for one in told["neighbours"][:SHOWN] for line in (_line(one), *_behind(one))]
        typer.echo("\neach neighbour (attention and what it carries: first layer, second layer)")
        console.table(shown)
        more = len(told["neighbours"]) - SHOWN + told["unshown"]
        if more > 0:
            typer.echo(f"and {more} more; --json has up to 64 of them")
    elif told["unshown"]:
        typer.echo(f"\n{told['unshown']:,} neighbours are too many to tell them apart")
    features = sorted(told["features"].items(), key=lambda pair: -abs(pair[1]["log_reach"]))
    typer.echo("\neach feature, with a stranger's value in its place")
    console.table([{"feature": name, "value": one["value"], **_worth(one)} for name, one in features])
    typer.echo("")
    _show_change(told["change"])


def _worth(worth: dict[str, float]) -> dict[str, str]:
    return {"people": f"{worth['people']:+.3f}", "log reach": f"{worth['log_reach']:+.4f}"}


def _line(one: dict[str, Any], depth: int = 0) -> dict[str, str]:
    return {
        "relation": "  " * depth + one["relation"],
        "from": one["id"],
        "since": one["since"][:16].replace("T", " "),
        "attention": " ".join(f"{value:.3f}" for value in one["attention"]),
        "carried": " ".join(f"{value:+.4f}" for value in one["carried"]),
        **_worth(one),
    }


def _behind(one: dict[str, Any]) -> list[dict[str, str]]:
    return [_line(inner, 1) for inner in one.get("neighbours", ())[:3]]


def _show_change(change: dict[str, Any]) -> None:
    """Print what is different from the score before."""
    published, before = change["published"], change["before"]
    if published:
        typer.echo(f"published last: reach {published['reach']:.2f}, percentile {published['percentile']:.1f}")
    if before is None:
        typer.echo(f"the score before that is {change['why']}")
        return
    typer.echo(
        f"published before that: reach {before['reach']:.2f}, percentile {before['percentile']:.1f}, as of "
        f"{before['as_of']}, model {before['model']}; since then {change['people']:+.3f} people"
    )
    for name, part in (("own features", change["own"]), ("neighbours and standing", change["rest"])):
        if part is not None:
            typer.echo(f"  {part['people']:+.3f} people by {name}")
    for name, one in change["features"].items():
        typer.echo(f"  {name} from {one['before']} to {one['now']}: {one['people']:+.3f} people")
    for word in ("arrived", "gone"):
        for relation, who in change[word] or ():
            console.line(f"  {word}: {relation} {who}")
