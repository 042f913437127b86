"""The demo, and the commands that produce and follow events, on a real broker."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest

from model.simulation.stream import Simulation
from streams import cli
from streams.commands import tail
from streams.commands._examples import EXAMPLES
from streams.errors import InputError
from streams.kafka import topics
from streams.messages.files import event_files
from streams.messages.headers import rfc3339
from streams.settings.connection import kafka_arguments
from streams.settings.settings import PREFIX, Settings
from streams.telemetry import console
from streams.worker.group.faust_app import free_port

GROUNDSWELL = [sys.executable, "-m", "streams.cli"]
KEYS = {"events", "mutations", "scores", "alerts", "dead_letters", "freshness_p50_ms", "freshness_p99_ms"}


def own_temporary(folder: Path) -> dict[str, str]:
    """An environment with its own folder for temporary files, so that remaining files show."""
    return {**os.environ, "TMPDIR": str(folder)}


def children(pid: int) -> set[int]:
    """The direct and indirect child processes of a process."""
    listing = subprocess.run(["ps", "-eo", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    pairs = [tuple(map(int, line.split())) for line in listing.splitlines()]
    found = {pid}
    while more := {child for child, parent in pairs if parent in found} - found:
        found |= more
    return found - {pid}


def alive(pid: int) -> bool:
    """Whether a process exists and is no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def press(address: str, demo: subprocess.Popen[str]) -> dict[str, Any]:
    """Post to the demo's button until the worker accepts it, as soon as the first users have posts."""
    request = urllib.request.Request(address, data=b"{}", headers={"Content-Type": "application/json"})
    deadline = time.monotonic() + 200
    while True:
        try:
            with urllib.request.urlopen(request, timeout=60) as answer:
                found: dict[str, Any] = json.load(answer)
                return found
        except OSError:
            assert demo.poll() is None, demo.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.2)


def test_a_short_demo_counts_what_it_did(tmp_path: Path) -> None:
    """History and some live seconds: all events are scored, alerts fire, the button's share too; nothing remains."""
    port = free_port("127.0.0.1")
    demo = [*GROUNDSWELL, "demo", "--json", "--minutes", "0.2", "--port", str(port)]
    pipe = subprocess.PIPE
    process = subprocess.Popen(demo, stdout=pipe, stderr=pipe, text=True, env=own_temporary(tmp_path))
    try:
        shared = press(f"http://127.0.0.1:{port}/api/v1/demo/share", process)
        out, errors = process.communicate(timeout=240)
    finally:
        process.kill()
    assert process.returncode == 0, errors
    assert shared["user"].startswith("visitor.")
    # A step of the history may compute nearly all of them.
    assert 0 < shared["layer1"] <= shared["nodes"]
    assert 0 < shared["layer2"] <= shared["users"]
    summary = json.loads(out)
    assert set(summary) >= KEYS
    assert summary["mutations"] > summary["events"] > 20_000
    assert summary["scores"] > 0
    assert summary["alerts"] > 0
    assert summary["dead_letters"] == 0
    assert summary["metrics_agree"]
    assert summary["freshness_p50_ms"] < 5_000
    assert list(tmp_path.glob("groundswell-*")) == []


def test_a_file_through_the_broker_gives_the_scores_of_replay(tmp_path: Path) -> None:
    """`demo --replay` produces exactly the scores of `replay`, although the events pass through Kafka."""
    path = tmp_path / "events.parquet"
    event_files.write(path, Simulation(300, 5, seed=3, posts_per_day=0.8).events(12))
    demo = [*GROUNDSWELL, "demo", "--json", "--rate", "0", "--replay", str(path), "--out", str(tmp_path / "demo")]
    done = subprocess.run(demo, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert cli.run(["replay", str(path), "--out", str(tmp_path / "replay"), "--json"]) == 0
    ours, theirs = (pq.read_table(tmp_path / name / "scores.parquet") for name in ("demo", "replay"))
    assert ours["user"].equals(theirs["user"])
    assert ours.num_rows > 100
    assert np.abs(ours["reach"].to_numpy() - theirs["reach"].to_numpy()).max() <= 1e-5
    assert np.abs(ours["percentile"].to_numpy() - theirs["percentile"].to_numpy()).max() <= 1e-5
    assert ours["as_of"].equals(theirs["as_of"])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_no_process_outlives_a_demo(number: signal.Signals, tmp_path: Path) -> None:
    """Ctrl-C ends the demo with a summary; when it is killed, worker, Kafka and folders go too."""
    pipe = subprocess.PIPE
    environment = own_temporary(tmp_path)
    # In a background job of a shell the tests inherit that Ctrl-C is ignored, and so would the demo.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    demo = subprocess.Popen([*GROUNDSWELL, "demo", "--json"], stdout=pipe, stderr=pipe, text=True, env=environment)
    signal.signal(signal.SIGINT, before)
    try:
        deadline = time.monotonic() + 120
        while not any("streams.demo.worker_process_main" in _command(pid) for pid in children(demo.pid)):
            assert demo.poll() is None, demo.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.2)
        time.sleep(3)
        family = children(demo.pid)
        demo.send_signal(number)
        out, errors = demo.communicate(timeout=60)
    finally:
        demo.kill()
    if number == signal.SIGINT:
        assert demo.returncode == 0, errors
        assert "Traceback" not in errors
    deadline = time.monotonic() + 30
    while any(map(alive, family)) or (left := list(tmp_path.glob("groundswell-*"))):
        assert time.monotonic() < deadline, (family, left)
        time.sleep(0.2)
    assert out == "" or "events" in json.loads(out)


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


def test_a_used_port_is_reported_before_anything_starts() -> None:
    """A requested port is used, or one line names the remedy."""
    import socket

    from streams.commands import demo

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with pytest.raises(InputError, match="--port"):
            demo._port(Settings(), taken.getsockname()[1])
    assert demo._port(Settings(), 0) > 0


@pytest.fixture
def environment(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The settings of this test in the environment, as a command reads them; the topics exist."""
    monkeypatch.setenv(PREFIX + "BROKER", settings.broker)
    monkeypatch.setenv(PREFIX + "PREFIX", settings.prefix)
    with topics.admin(settings) as client:
        topics.create(client, topics.Topics(settings).all())
    return settings


def test_produce_sends_each_event_to_its_topic(
    environment: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All events of a file arrive unchanged and keyed by user; a bad line stops the command and is named."""
    path = tmp_path / "events.jsonl"
    rows = list(Simulation(40, 2, seed=1).events(3))
    event_files.write(path, rows)
    assert cli.run(["produce", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["events"] == len(rows)
    found = []
    for spec in topics.Topics(environment).inputs.values():
        expected = sum(1 for row in rows if row["type"] in spec.about.replace(" events", "").split(", "))
        stream = tail.messages(environment, spec, from_beginning=True)
        for _, (key, value) in zip(range(expected), stream, strict=False):
            row = json.loads(value or b"")
            assert row["user"] == key
            found.append(row)
        stream.close()
    by_content = lambda row: json.dumps(row, sort_keys=True)  # noqa: E731
    assert sorted(found, key=by_content) == sorted(rows, key=by_content)
    path.write_text('{"type":"follow","time":1,"user":"a"}\n')
    assert cli.run(["produce", str(path)]) == 1
    assert "events.jsonl, line 1" in capsys.readouterr().err


def test_examples_of_commands_run_against_kafka(
    environment: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Examples of `--help` that end by themselves and need a broker only succeed, in their order."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv(PREFIX + "DATADIR", str(tmp_path / "state"))
    event_files.write(tmp_path / "events.parquet", Simulation(40, 2, seed=1).events(3))
    for command in (
        "topics create",
        "topics list",
        "topics describe",
        "produce",
        "dlq list",
        "dlq replay",
        "dlq purge",
        "model history",
    ):
        for line in EXAMPLES[command]:
            if " | " not in line:
                arguments = shlex.split(line.replace("influence.share.v1", f"{environment.prefix}influence.share.v1"))
                assert cli.run(arguments[1:]) == 0, (line, capsys.readouterr().err)


def test_produce_keeps_to_its_rate(environment: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """At 50 per second, 100 events take two seconds."""
    path = tmp_path / "events.jsonl"
    event_files.write(path, ({"type": "follow", "time": at, "user": f"u{at}", "target": "v"} for at in range(100)))
    assert cli.run(["produce", str(path), "--rate", "50", "--json"]) == 0
    assert 1.5 < json.loads(capsys.readouterr().out)["seconds"] < 10


def test_tail_shows_scores_alerts_and_tombstones(environment: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """Both topics are followed from the beginning, as text and as JSON, with a note where scores are not calibrated."""
    from kafka import KafkaProducer

    registry = topics.Topics(environment)
    score = {"user": "ana", "reach": 3.5, "percentile": 90.0, "as_of": rfc3339(1_300_000_000_000_000), "model": "m"}
    alert = {**score, "alert": "a1", "kind": "emerging", "velocity": 1.5, "level": 4, "new_sharers": 5, "content": None}
    producer = KafkaProducer(**kafka_arguments(environment))
    for topic, value in ((registry.score, score), (registry.score, None), (registry.alert, alert)):
        producer.send(topic.name, key=b"ana", value=value and json.dumps(value).encode()).get(10)
    assert cli.run(["tail", "scores", "--from-beginning", "--limit", "2", "--json"]) == 0
    lines = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert lines == [score, {"user": "ana", "forgotten": True}]
    assert cli.run(["tail", "alerts", "--from-beginning", "--limit", "1"]) == 0
    shown = capsys.readouterr()
    assert "5 new sharers, 4 shares before" in shown.out
    assert shown.err == f"note: {console.NOT_CALIBRATED}\n"
    producer.send(registry.models.name, key=b"map/m", value=b"the calibration of m", partition=0).get(10)
    producer.close()
    assert cli.run(["tail", "scores", "--from-beginning", "--limit", "2"]) == 0
    shown = capsys.readouterr()
    assert "forgotten" in shown.out
    assert shown.err == ""


def test_simulate_writes_the_same_file_for_the_same_seed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Events and truth depend only on the arguments."""
    for name in ("a", "b"):
        arguments = ["--users", "50", "--communities", "2", "--days", "3", "--seed", "7", "--json"]
        paths = ["--out", str(tmp_path / f"{name}.jsonl.gz"), "--truth", str(tmp_path / f"{name}.parquet")]
        assert cli.run(["simulate", *arguments, *paths]) == 0
    assert list(event_files.rows(tmp_path / "a.jsonl.gz")) == list(event_files.rows(tmp_path / "b.jsonl.gz"))
    assert pq.read_table(tmp_path / "a.parquet").equals(pq.read_table(tmp_path / "b.parquet"))
    assert pq.read_table(tmp_path / "a.parquet").num_rows == 50
    assert cli.run(["simulate", "--users", "50", "--out", str(tmp_path / "c.jsonl"), "--communities", "40"]) == 1
