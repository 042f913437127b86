"""The README: its examples run as they stand there, and its messages are what the code reads and writes."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest
from kafka import KafkaProducer

from streams.kafka import topics
from streams.messages import events
from streams.messages.outputs import AlertValue, ScoreValue
from streams.settings.connection import kafka_arguments
from streams.settings.settings import PREFIX, Settings
from tests.support import tidy
from tests.support.workers import wait_for

README = (tidy.ROOT / "README.md").read_text(encoding="utf-8")
BROKER = "localhost:9092"
# A broker and a worker start in it, on cores that other tests use too.
SHELL_S = 240.0


def blocks(language: str) -> list[str]:
    """The code blocks of a language, in their order."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def test_messages_are_those_of_the_schemas() -> None:
    """Inputs pass validation on their topics, outputs have exactly the fields that are written."""
    follow, share, create, score, alert = map(str.encode, blocks("json"))
    now_ms = time.time_ns() // 1_000_000
    assert len(events.mutations(follow, "follow", now_ms)) == 1
    assert len(events.mutations(share, "share", now_ms)) == 1
    assert len(events.mutations(create, "create", now_ms)) == 1
    assert tuple(json.loads(score)) == ScoreValue.__struct_fields__
    assert tuple(json.loads(alert)) == AlertValue.__struct_fields__


@pytest.mark.parametrize("page", ["README.md", "docs/operations.md", "docs/architecture.md"])
def test_links_lead_somewhere(page: str) -> None:
    """Every file that is linked exists."""
    path = tidy.ROOT / page
    links = re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", path.read_text(encoding="utf-8"))
    assert [link for link in links if not (path.parent / link).exists()] == []


@pytest.fixture
def plain(settings: Settings) -> Settings:
    """Settings without a prefix, as the examples use them; topics exist, with a score and an alert on them."""
    settings = settings.model_copy(update={"prefix": ""})
    registry = topics.Topics(settings)
    with topics.admin(settings) as client:
        topics.create(client, registry.all())
    producer = KafkaProducer(**kafka_arguments(settings))
    for spec, example in zip((registry.score, registry.alert), blocks("json")[3:], strict=True):
        producer.send(spec.name, key=b"bo", value=example.strip().encode()).get(10)
    producer.send(registry.score.name, key=b"gone", value=None).get(10)
    producer.close()
    return settings


def test_the_python_example_runs(plain: Settings, tmp_path: Path) -> None:
    """It prints the score, the alert and who was forgotten."""
    (code,) = blocks("python")
    script = tmp_path / "example.py"
    script.write_text(code.replace(BROKER, plain.broker), encoding="utf-8")
    process = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        lines = {process.stdout.readline().strip() for _ in range(3)}
    finally:
        process.kill()
        process.communicate()
    assert lines == {"bo reach 7.31, percentile 96.4", "ALERT bo 26 new sharers", "gone was forgotten"}


def test_the_shell_example_runs(tmp_path: Path) -> None:
    """Its commands score the event with a Kafka and a worker of their own, end by themselves, and end both of these."""
    code = next(block for block in blocks("sh") if "tail" in block)
    (tmp_path / ".venv").symlink_to(Path(sys.prefix))
    environment = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    environment["TMPDIR"] = str(tmp_path)
    printed, said = tmp_path / "printed", tmp_path / "said"
    with printed.open("wb") as out, said.open("wb") as err:
        # Output to files, and a session of its own: what a failure leaves running cannot keep the test, and is killed.
        shell = subprocess.Popen(
            ["bash", "-euc", code], stdout=out, stderr=err, cwd=tmp_path, env=environment, start_new_session=True
        )
    try:
        assert shell.wait(SHELL_S) == 0, said.read_text(encoding="utf-8")
    finally:
        with suppress(ProcessLookupError):
            os.killpg(shell.pid, signal.SIGKILL)
        shell.wait()
    assert "1 events sent" in printed.read_text(encoding="utf-8")
    score = json.loads(printed.read_text(encoding="utf-8").splitlines()[-1])
    assert score["user"] == "bo"
    assert tuple(score) == ScoreValue.__struct_fields__
    # The supervisor removes the broker's folder after it has ended the broker.
    wait_for(lambda: not list(tmp_path.glob("groundswell-kafka-*")), 30, "the example's Kafka to be gone")
