"""Rights in Kafka, against a broker with ACLs: each that is missing is named, by the doctor, a worker and commands."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest

from streams import cli
from streams.errors import NotAllowed, Right
from streams.kafka import log_io, topics
from streams.kafka.access import rights, rights_table
from streams.kafka.topics import Topics
from streams.settings.settings import Settings
from tests.support.analysts import AnalystProcess
from tests.support.guarded import PASSWORD, GuardedKafka
from tests.support.workers import environment, producer, wait_for, worker

TABLE = "; see the table of rights in docs/operations.md"
EVENT = {"type": "create", "time": 1_700_000_000, "user": "ann", "content": "c1"}


@pytest.fixture(scope="module")
def guarded() -> Iterator[GuardedKafka]:
    """Start a broker with ACLs."""
    with GuardedKafka() as broker:
        yield broker


@pytest.fixture
def open_settings(guarded: GuardedKafka, offline_settings: Settings) -> Settings:
    """Return settings of a user with all rights."""
    return offline_settings.model_copy(update={"broker": guarded.address})


@pytest.fixture
def made(open_settings: Settings) -> Settings:
    """Create all topics; return settings of a user with all rights."""
    with topics.admin(open_settings) as client:
        topics.create(client, Topics(open_settings).all())
    return open_settings


def allowed(guarded: GuardedKafka, settings: Settings, user: str, *but: Right) -> Settings:
    """Return settings of a user with the rights of a worker without some."""
    guarded.grant(user, [right for right in rights_table.worker(settings) if right not in but])
    return guarded.settings(settings, user)


def command(settings: Settings, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a command to its end; all but a worker run in this process, which is faster."""
    if arguments == ("worker",):
        line = [sys.executable, "-m", "streams.cli", *arguments]
        return subprocess.run(line, env=environment(settings), capture_output=True, text=True, timeout=90, check=False)
    out, err = io.StringIO(), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(out), redirect_stderr(err):
        for name, value in environment(settings).items():
            patch.setenv(name, value)
        code = cli.run(arguments)
    assert PASSWORD not in out.getvalue() + err.getvalue()
    return subprocess.CompletedProcess(arguments, code, out.getvalue(), err.getvalue())


def refused(settings: Settings, *arguments: str) -> str:
    """Run a command that must fail; return its last line."""
    done = command(settings, *arguments)
    assert done.returncode == 1, done.stdout + done.stderr
    assert "missing; run" not in done.stdout + done.stderr
    return done.stderr.splitlines()[-1].removeprefix("groundswell: ")


def doctor(settings: Settings) -> dict[str, tuple[bool, str]]:
    """Run the doctor; return result and detail by check."""
    done = command(settings.model_copy(update={"web_port": 0}), "doctor", "--json")
    return {check["name"]: (check["ok"], check["detail"]) for check in json.loads(done.stdout)["checks"]}


def test_each_missing_right_is_named(guarded: GuardedKafka, made: Settings) -> None:
    """The doctor and a worker that starts name the topic or group, the right and the user, and change nothing."""
    registry = Topics(made)
    group = Right("read", made.consumer_group, group=True)
    cases = {
        "nowrite": [Right("write", registry.score.name)],
        "noread": [Right("read", registry.share.name)],
        "nogroup": [group],
        "nodescribe": [Right("write", registry.alert.name)],
    }
    for user, lacking in cases.items():
        settings = allowed(guarded, made, user, *lacking)
        # Without the only right that includes it, a topic may not be described either.
        seen = [Right("describe", registry.alert.name)] if user == "nodescribe" else lacking
        if user in {"nowrite", "noread"}:
            guarded.grant(user, [Right("describe", lacking[0].name)])
        line = str(NotAllowed(seen, user))
        with pytest.raises(NotAllowed) as caught, topics.admin(settings) as client:
            rights.require(client, rights_table.worker(settings), 10)
        assert str(caught.value) == line
        assert refused(settings, "worker") == line
        well, detail = doctor(settings)["rights"]
        assert not well
        assert all(right.target in detail and right.operation in detail for right in lacking), detail
        assert detail.endswith(f"as {user}{TABLE}")


def test_a_right_to_create_is_named(guarded: GuardedKafka, open_settings: Settings) -> None:
    """The right to create is checked for absent topics; a topic that may be described and does not exist is absent."""
    models = Topics(open_settings).models.name
    settings = allowed(guarded, open_settings, "nocreate", Right("create", models))
    guarded.grant(
        "nocreate", [Right(o, s.name) for o in ("create", "describe") for s in Topics(open_settings).analysis]
    )
    line = f"not allowed to create {models} as nocreate{TABLE}"
    assert refused(settings, "topics", "create") == line
    assert refused(settings, "worker") == line
    assert doctor(settings)["rights"] == (False, line)
    with topics.admin(open_settings) as client:
        assert rights.absent(client, [models]) == [models]


def test_absent_and_not_allowed_topics_are_distinguished(guarded: GuardedKafka, made: Settings, tmp_path: Path) -> None:
    """No command reports a topic as missing that it may not describe."""
    settings = guarded.settings(made, "nothing")
    registry = Topics(settings)
    events = tmp_path / "events.jsonl"
    events.write_text(json.dumps(EVENT) + "\n", encoding="utf-8")
    letters = [registry.dlq(spec).name for spec in registry.inputs.values()]
    cases = {
        ("produce", str(events)): registry.follow.name,
        ("tail", "scores"): registry.score.name,
        ("tail", "alerts"): registry.alert.name,
        ("dlq", "list"): letters[0],
        ("dlq", "show", "share"): letters[1],
        ("topics", "describe"): registry.follow.name,
        ("topics", "create"): registry.follow.name,
        ("train", "--topics", "--out", str(tmp_path / "model")): registry.follow.name,
        ("state", "find", "ann", "--topics"): registry.follow.name,
        ("model", "use", "--packaged"): registry.models.name,
        ("state", "reshard", "--to", "2"): registry.mutations.name,
        ("topics", "list"): registry.follow.name,
    }
    for arguments, name in cases.items():
        line = refused(settings, *arguments)
        assert re.fullmatch(rf"not allowed to describe ([\w.-]+, )*{re.escape(name)}.* as nothing{TABLE}", line), (
            arguments,
            line,
        )
    listed = json.loads(command(settings, "topics", "list", "--json").stdout)
    assert {row["exists"] for row in listed} == {None}
    assert "not allowed to describe" in doctor(settings)["topics"][1]


def test_commands_check_their_rights_first(guarded: GuardedKafka, made: Settings, tmp_path: Path) -> None:
    """A user with Describe only is refused, with the missing right, before anything is sent or read."""
    registry = Topics(made)
    settings = guarded.settings(made, "reader")
    group = Right("describe", f"{made.consumer_group}.dlq", group=True)
    guarded.grant("reader", [*(Right("describe", spec.name) for spec in registry.all()), group])
    events = tmp_path / "events.jsonl"
    events.write_text(json.dumps(EVENT) + "\n", encoding="utf-8")
    inputs = ", ".join(spec.name for spec in registry.inputs.values())
    letters = ", ".join(registry.dlq(spec).name for spec in registry.inputs.values())
    assert refused(settings, "produce", str(events)) == f"not allowed to write {inputs} as reader{TABLE}"
    assert refused(settings, "tail", "scores") == f"not allowed to read {registry.score.name} as reader{TABLE}"
    assert refused(settings, "dlq", "list") == f"not allowed to read {letters} as reader{TABLE}"
    assert refused(settings, "train", "--topics", "--out", str(tmp_path / "model")) == (
        f"not allowed to read {inputs} as reader{TABLE}"
    )
    assert refused(settings, "state", "find", "ann", "--topics").startswith(f"not allowed to read {inputs}")
    assert refused(settings, "topics", "describe") == (
        f"not allowed to describe group {made.consumer_group} as reader{TABLE}"
    )
    guarded.grant("reader", [Right("read", registry.dlq(registry.share).name)])
    assert refused(settings, "dlq", "replay", "share") == (
        f"not allowed to read group {made.consumer_group}.dlq; write {registry.share.name} as reader{TABLE}"
    )


def test_the_rights_of_the_table_are_enough(guarded: GuardedKafka, open_settings: Settings) -> None:
    """A worker with the rights of its row creates the topics and scores; a right that is revoked stops it."""
    settings = allowed(guarded, open_settings, "all")
    registry = Topics(settings)
    with worker(settings) as process:
        with producer(open_settings) as sender:
            sender.send(registry.create.name, json.dumps(EVENT).encode())
        wait_for(lambda: process.get("/api/v1/users/ann")[0] == 200, 30, "the score")
        well, detail = doctor(settings)["rights"]
        assert well
        assert "`produce` (write" in detail
        guarded.revoke("all", [Right("write", registry.score.name)])
        with producer(open_settings) as sender:
            sender.send(registry.create.name, json.dumps({**EVENT, "user": "bob", "content": "c2"}).encode())
        assert process.ended() == 1
        last = process.log.read_text().splitlines()[-1]
        assert f"not allowed to describe {registry.score.name} as all" in last


def test_each_row_of_the_table_is_enough(
    guarded: GuardedKafka, open_settings: Settings, made: Settings, tmp_path: Path
) -> None:
    """Every command works with exactly the rights of its row, and the doctor names the missing rights."""
    events = tmp_path / "events.jsonl"
    events.write_text(json.dumps(EVENT) + "\n", encoding="utf-8")
    with producer(open_settings) as sender:
        sender.send(Topics(made).score.name, value=None, key=b"ann")
    commands: dict[str, tuple[str, ...]] = {
        "analyst": (),
        "topics create": ("topics", "create"),
        "topics list, describe": ("topics", "describe"),
        "produce": ("produce", str(events)),
        "tail": ("tail", "scores", "--from-beginning", "--limit", "1"),
        "train --topics": (),
        "dlq list, show": ("dlq", "list"),
        "dlq replay": ("dlq", "replay"),
        "dlq purge": ("dlq", "purge", "--all", "--yes"),
        "model use": ("model", "use", "--packaged"),
        "state find --topics": ("state", "find", "ann", "--topics"),
        "state reshard": ("state", "reshard", "--to", "2"),
    }
    assert commands.keys() == rights_table.ROWS.keys()
    failed = {}
    for number, (name, arguments) in enumerate(commands.items()):
        settings = guarded.settings(made, f"row{number}")
        if name == "topics create":
            settings = settings.model_copy(update={"prefix": f"{settings.prefix}new."})
        guarded.grant(f"row{number}", rights_table.ROWS[name](settings))
        if name == "analyst":
            analyst = AnalystProcess(settings.model_copy(update={"analyst_port": settings.web_port}))
            analyst.start()
            analyst.wait_ready()
            assert analyst.stop() == 0
            continue
        if not arguments:
            assert log_io.read_inputs(settings).mutations
            continue
        done = command(settings, *arguments)
        if done.returncode:
            failed[name] = done.stderr
    assert failed == {}


def test_an_advertised_address_that_cannot_be_reached_is_named(guarded: GuardedKafka, open_settings: Settings) -> None:
    """The error names the broker and the address that it advertises and that does not answer."""
    for address, advertised in guarded.unreachable_listeners().items():
        settings = open_settings.model_copy(update={"broker": address})
        line = refused(settings, "topics", "list")
        assert line.startswith(f"Kafka at {address} advertises {advertised}, which cannot be reached from here (")
        assert line.endswith("): set advertised.listeners of the broker to an address that is reachable")
        assert doctor(settings)["broker"] == (False, line)


def test_the_table_of_the_docs_is_that_of_the_code() -> None:
    """The table in the docs has the rows of the code, and no others."""
    page = (Path(__file__).parents[2] / "docs" / "operations.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (.+?) \| ", page.split("| for | rights")[1].split("\n\n")[0], re.MULTILINE)
    assert [row.replace("`", "") for row in rows] == ["a worker", *rights_table.ROWS]
