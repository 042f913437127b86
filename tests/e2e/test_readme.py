"""The README: its examples run unchanged, and its messages are those that the code reads and writes."""

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

from graphstate.types import Kind
from streams.kafka import topics
from streams.messages import events
from streams.messages.outputs import ALERT_FIELDS, OUTCOME_FIELDS, SCORE_FIELDS, TOPIC_FIELDS
from streams.settings.connection import kafka_arguments
from streams.settings.settings import PREFIX, Settings
from tests.support import tidy
from tests.support.workers import wait_for

README = (tidy.ROOT / "README.md").read_text(encoding="utf-8")
BROKER = "localhost:9092"
# The example starts a broker and a worker, on cores shared with other tests.
SHELL_S = 240.0


def blocks(language: str) -> list[str]:
    """The code blocks of a language, in order."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.DOTALL | re.MULTILINE)


def test_messages_match_the_schemas() -> None:
    """Inputs pass validation on their topics, outputs have exactly the written fields."""
    follow, share, create, score, topic, alert, outcome = map(str.encode, blocks("json"))
    now_ms = time.time_ns() // 1_000_000
    assert len(events.mutations(follow, "follow", now_ms)) == 1
    assert len(events.mutations(share, "share", now_ms)) == 1
    kinds = [mutation.kind for mutation in events.mutations(create, "create", now_ms)]
    assert kinds == [Kind.CREATE, Kind.LABELS]
    assert tuple(json.loads(score)) == SCORE_FIELDS
    assert tuple(json.loads(topic)) == TOPIC_FIELDS
    assert tuple(json.loads(alert)) == ALERT_FIELDS
    assert tuple(json.loads(outcome)) == OUTCOME_FIELDS


@pytest.mark.parametrize("page", ["README.md", "docs/operations.md", "docs/architecture.md"])
def test_linked_files_exist(page: str) -> None:
    """Every linked file exists."""
    path = tidy.ROOT / page
    links = re.findall(r"\]\((?!https?:)([^)#]+)[^)]*\)", path.read_text(encoding="utf-8"))
    assert [link for link in links if not (path.parent / link).exists()] == []


@pytest.fixture
def plain(settings: Settings) -> Settings:
    """Settings without a prefix, as in the examples; the topics exist, with a score and an alert."""
    settings = settings.model_copy(update={"prefix": ""})
    registry = topics.Topics(settings)
    with topics.admin(settings) as client:
        topics.create(client, registry.all())
    producer = KafkaProducer(**kafka_arguments(settings))
    for spec, example in zip((registry.score, registry.alert), blocks("json")[3:6:2], strict=True):
        producer.send(spec.name, key=b"bo", value=example.strip().encode()).get(10)
    producer.send(registry.score.name, key=b"gone", value=None).get(10)
    producer.close()
    return settings


def test_the_python_example_runs(plain: Settings, tmp_path: Path) -> None:
    """It prints the score, the alert and the forgotten user."""
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
    """Its commands score the event with their own Kafka and worker, end by themselves, and stop both."""
    code = next(block for block in blocks("sh") if "tail" in block)
    (tmp_path / ".venv").symlink_to(Path(sys.prefix))
    environment = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    environment["TMPDIR"] = str(tmp_path)
    printed, errors = tmp_path / "printed", tmp_path / "errors"
    with printed.open("wb") as out, errors.open("wb") as err:
        # Output to files and a separate session: processes left by a failure cannot block the test, and are killed.
        shell = subprocess.Popen(
            ["bash", "-euc", code], stdout=out, stderr=err, cwd=tmp_path, env=environment, start_new_session=True
        )
    try:
        assert shell.wait(SHELL_S) == 0, errors.read_text(encoding="utf-8")
    finally:
        with suppress(ProcessLookupError):
            os.killpg(shell.pid, signal.SIGKILL)
        shell.wait()
    assert "1 event sent" in printed.read_text(encoding="utf-8")
    score = json.loads(printed.read_text(encoding="utf-8").splitlines()[-1])
    assert score["user"] == "bo"
    assert tuple(score) == SCORE_FIELDS
    # The supervisor removes the broker's folder after the broker ended.
    wait_for(lambda: not list(tmp_path.glob("groundswell-kafka-*")), 30, "the example's Kafka to be gone")
