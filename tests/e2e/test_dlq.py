"""Dead letters on a real broker: listed, shown, sent again after a fix without double counting, deleted."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaProducer
from kafka.admin import OffsetSpec
from kafka.structs import TopicPartition

from streams import cli
from streams.errors import BrokerError
from streams.kafka.topics import Topics, admin
from streams.messages.events import MESSAGE_BYTES, TOPIC_OF
from streams.messages.headers import ERRORS, error_headers
from streams.operations import dead_letter_queue
from streams.operations.dead_letter_queue import DeadLetterQueue
from streams.settings.connection import kafka_arguments
from streams.settings.settings import Settings
from streams.worker.processing.dead_letters import ATTEMPT, EXCEPTION, TIMESTAMP, dead_letter_of
from tests.recovery.test_kill import check_undisturbed
from tests.support import faulty
from tests.support.histories import history
from tests.support.workers import WorkerProcess, lag, producer, read_all, wait_for, worker
from tests.unit.streams.operations.test_dead_letter_queue import Record

SENT_MS = 1_700_000_000_000
EVENTS = 4_000


def printed(capsys: pytest.CaptureFixture[str], *arguments: str) -> Any:
    """The JSON output of a command, which must succeed."""
    capsys.readouterr()
    assert cli.run([*arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def write(settings: Settings, values: Iterable[tuple[str, bytes]], **more: Any) -> str:
    """Write dead letters of share messages (reason, value) as a worker does; return the topic."""
    topic = Topics(settings).share.name
    with producer(settings) as sender:
        for number, (reason, value) in enumerate(values):
            record = Record(
                value, b"key-%d" % number, [("trace", b"\xff%d" % number)], SENT_MS + number, topic, number % 4
            )
            key, kept, before = dead_letter_of(record)
            error = error_headers(before, topic, record.partition, 100 + number, EXCEPTION, f"{reason}: wrong")
            sender.send(f"{topic}.dlq", kept, key=key, headers=[*error, *more.get("headers", [])])
    return topic


def test_list_counts_and_show_prints(ready: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """By topic and reason; `show` prints one letter in full, the newest ones, or those of a reason."""
    assert printed(capsys, "dlq", "list") == []
    topic = write(ready, [("json", b"\x1b[2J{"), ("time", b"late"), ("json", b"\xff\xfe")])
    rows = printed(capsys, "dlq", "list", "share")
    assert [(row["topic"], row["reason"], row["letters"], row["waiting"]) for row in rows] == [
        (f"{topic}.dlq", "json", 2, 2),
        (f"{topic}.dlq", "time", 1, 1),
    ]
    (first,) = printed(capsys, "dlq", "show", topic, "0")
    assert base64.b64decode(first["value_base64"]) == b"\x1b[2J{"
    assert (first["value"], first["message"]) == ("\x1b[2J{", "json: wrong")
    assert first["timestamp"] == "2023-11-14T22:13:20.000000Z"
    assert {name for name, _ in first["headers"]} >= {"trace", TIMESTAMP, f"{ERRORS}offset"}
    assert [one["offset"] for one in printed(capsys, "dlq", "show", "share", "--reason", "json")] == [0, 2]
    assert [one["offset"] for one in printed(capsys, "dlq", "show", "share", "--limit", "1")] == [2]
    assert cli.run(["dlq", "show", "share"]) == 0
    assert "\\x1b[2J{" in (out := capsys.readouterr().out)
    assert "\x1b" not in out
    for wrong, says in ((["show", "share", "9"], "no letter at offset 9"), (["list", "shares"], "no dead letters of")):
        assert cli.run(["dlq", *wrong]) == 1
        assert says in capsys.readouterr().err


def test_replay_sends_letters_unchanged_in_order_and_once(ready: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """Bytes, key, headers, partition and timestamp are those of the message; a second replay sends nothing."""
    values = [("json", b"a\xff"), ("time", b"b"), ("json", b""), ("time", b"d")] * 5
    topic = write(ready, values)
    assert printed(capsys, "dlq", "replay", "share", "--dry-run") == [
        {"topic": f"{topic}.dlq", "sent": 20, "left_out": 0, "dry_run": True}
    ]
    assert read_all(ready, [topic]) == []
    assert [one["sent"] for one in printed(capsys, "dlq", "replay")] == [0, 20, 0]
    found = read_all(ready, [topic])
    assert len(found) == 20
    for partition in range(4):
        mine = [record for record in found if record.partition == partition]
        assert [record.key for record in mine] == [b"key-%d" % number for number in range(partition, 20, 4)]
    for record in found:
        number = int(record.key.decode().removeprefix("key-"))
        assert record.value == values[number][1]
        assert record.timestamp == SENT_MS + number
        assert record.headers == [("trace", b"\xff%d" % number), (ATTEMPT, b"1")]
    assert [one["sent"] for one in printed(capsys, "dlq", "replay", "share")] == [0]
    assert [row["waiting"] for row in printed(capsys, "dlq", "list")] == [0, 0]
    write(ready, [("json", b"new")], headers=[(ATTEMPT, b"1")])
    assert [one["sent"] for one in printed(capsys, "dlq", "replay", "share")] == [1]
    assert [r.headers[-1] for r in read_all(ready, [topic]) if r.value == b"new"] == [(ATTEMPT, b"2")]


def test_replay_of_one_reason_leaves_the_others(ready: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """One reason, then a few letters, then the rest: each letter is sent once in total."""
    topic = write(
        ready, [("json", b"j%d" % number) if number % 2 else ("time", b"t%d" % number) for number in range(20)]
    )

    def sent(*options: str) -> int:
        (one,) = printed(capsys, "dlq", "replay", "share", *options)
        return int(one["sent"])

    assert sent("--reason", "json", "--limit", "3") == 3
    assert {record.value for record in read_all(ready, [topic])} == {b"j1", b"j3", b"j5"}
    assert sent("--limit", "4") == 4
    assert {record.value for record in read_all(ready, [topic])} == {b"j1", b"j3", b"j5", b"t0", b"t2", b"t4", b"t6"}
    assert sent("--reason", "json") == 7
    assert sent("--reason", "json") == 0
    assert [row["waiting"] for row in printed(capsys, "dlq", "list")] == [0, 6]
    assert sent() == 6
    assert sent() == 0
    values = [record.value for record in read_all(ready, [topic])]
    assert len(values) == len(set(values)) == 20


def test_a_crash_during_replay_repeats_at_most_a_batch(ready: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Letters acknowledged but not committed are sent again by the next replay; no letter is lost."""
    monkeypatch.setattr(dead_letter_queue, "BATCH", 10)
    topic = write(ready, [("json", b"%d" % number) for number in range(35)])
    commit, commits = DeadLetterQueue._commit, []

    def crash(self: DeadLetterQueue, *place: Any) -> None:
        commits.append(place)
        if len(commits) == 3:
            raise BrokerError("gone")
        commit(self, *place)

    monkeypatch.setattr(DeadLetterQueue, "_commit", crash)
    with admin(ready) as client:
        with pytest.raises(BrokerError):
            DeadLetterQueue(ready, client).resend(f"{topic}.dlq")
        assert DeadLetterQueue(ready, client).resend(f"{topic}.dlq").sent == 35 - 20
    values = sorted(int(record.value) for record in read_all(ready, [topic]))
    assert values == sorted([*range(35), *range(20, 30)])


def test_letters_that_cannot_be_sent_do_not_block_the_rest(ready: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """A truncated letter, and one that Kafka always refuses, are skipped and named; the others are sent."""
    noise = random.Random(1).randbytes
    values = [("json", b"%d" % number) for number in range(40)]
    for place in (1, 7, 23):
        values[place] = "size", noise(1_400_000)
    values[3] = "size", noise(2_000_000)
    topic = write(ready, values)
    (row,) = [row for row in printed(capsys, "dlq", "list") if row["reason"] == "size"]
    assert (row["letters"], row["cut"]) == (4, 1)
    assert cli.run(["dlq", "replay", "share"]) == 0
    printed_ = capsys.readouterr()
    assert "36 sent again" in printed_.out
    assert "1 left out because it was cut: offsets 3\n" in printed_.out
    assert "3 left out because Kafka refused it: MessageSizeTooLargeError: offsets 1, 7, 23\n" in printed_.out
    # Nothing but the progress that is shown after two seconds.
    assert [line for line in printed_.err.splitlines() if not line.startswith("sending: ")] == []
    found = read_all(ready, [topic])
    assert sorted(record.value for record in found) == sorted(value for reason, value in values if reason == "json")
    for partition in range(4):
        numbers = [int(record.value) for record in found if record.partition == partition]
        assert numbers == sorted(numbers)
    assert [one["sent"] for one in printed(capsys, "dlq", "replay", "share")] == [0]


def test_purge_deletes_what_it_lists(ready: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """Only with --yes: letters below an offset, letters sent again, or all."""
    topic = write(ready, [("json", b"%d" % number) for number in range(10)])

    def left() -> list[bytes]:
        return [record.value for record in read_all(ready, [f"{topic}.dlq"])]

    assert cli.run(["dlq", "purge", "--all"]) == 1
    assert "10 would be deleted" in capsys.readouterr().out
    assert len(left()) == 10
    for wrong in ([], ["--all", "--replayed"], ["--before", "3"]):
        assert cli.run(["dlq", "purge", *wrong, "--yes"]) == 2
    assert printed(capsys, "dlq", "purge", "share", "--before", "3", "--yes") == [
        {"topic": f"{topic}.dlq", "letters": 3, "deleted": True}
    ]
    assert left()[0] == b"3"
    printed(capsys, "dlq", "replay", "--limit", "2")
    printed(capsys, "dlq", "purge", "--replayed", "--yes")
    assert left() == [b"5", b"6", b"7", b"8", b"9"]
    printed(capsys, "dlq", "purge", "--all", "--yes")
    assert left() == []
    with admin(ready) as client:
        part = TopicPartition(f"{topic}.dlq", 0)
        assert client.list_partition_offsets({part: OffsetSpec.EARLIEST})[part].offset == 10


# With a worker


class FaultyProcess(WorkerProcess):
    """A worker of a faulty release, see tests/support/faulty.py."""

    def module(self) -> list[str]:
        """The module of that release."""
        return ["tests.support.faulty"]


def messages(events: list[dict[str, Any]]) -> list[tuple[str, bytes, list[dict[str, Any]]]]:
    """Pack the events into messages of one to five events of the same topic: topic kind, value, events."""
    chance, waiting, done = random.Random(3), {kind: [] for kind in ("follow", "share", "create")}, []  # type: ignore[var-annotated]
    for event in events:
        some = waiting[TOPIC_OF[event["type"]]]
        some.append(event)
        if chance.random() < 0.4 or len(some) == 5:
            done.append((TOPIC_OF[event["type"]], json.dumps(some if len(some) > 1 else some[0]).encode(), list(some)))
            some.clear()
    return done + [(kind, json.dumps(some).encode(), some) for kind, some in waiting.items() if some]


def wait_committed(settings: Settings) -> None:
    """Wait until everything on the inputs and the mutations topic is committed."""
    topics = Topics(settings)
    names = [*(spec.name for spec in topics.inputs.values()), topics.mutations.name]
    wait_for(lambda: lag(settings, names) == 0, 120, "everything to be committed")


def test_replay_after_a_fix_restores_graph_and_scores(
    ready: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A faulty release refuses a third of the users; after fix and replay graph and scores are as without the fault."""
    fixed = ready.model_copy(update={"retention_s": 0})
    events = list(history(random.Random(11), EVENTS))
    sent = messages(events)
    topics = Topics(ready)
    bad = [some for _, _, some in sent if any(faulty.refuses(event["user"]) for event in some)]
    mixed = [some for some in bad if not all(faulty.refuses(event["user"]) for event in some)]
    process = FaultyProcess(fixed)
    process.start()
    try:
        process.wait_ready()
        with producer(ready) as sender:
            for number, (kind, value, _) in enumerate(sent):
                sender.send(topics.inputs[kind].name, value, partition=number % 4)  # type: ignore[index]
        wait_committed(fixed)
        assert process.stop() == 0
    finally:
        process.kill()
    rows = printed(capsys, "dlq", "list")
    assert {row["reason"] for row in rows} == {faulty.REASON}
    assert sum(row["letters"] for row in rows) == len(bad) > 500
    assert len(mixed) > 300
    with worker(fixed) as process:
        assert sum(one["sent"] for one in printed(capsys, "dlq", "replay")) == len(bad)
        assert sum(one["sent"] for one in printed(capsys, "dlq", "replay")) == 0
        wait_committed(fixed)
        # As after lost offsets or a crash: every letter is sent once more.
        forget_positions(fixed)
        assert sum(one["sent"] for one in printed(capsys, "dlq", "replay")) == len(bad)
        wait_committed(fixed)
        assert process.stop() == 0
    assert sum(row["letters"] for row in printed(capsys, "dlq", "list")) == len(bad)
    check_undisturbed(fixed, events, tmp_path / "undisturbed")


def forget_positions(settings: Settings) -> None:
    """Delete the committed offsets, as Kafka does after `offsets.retention.minutes`."""
    with admin(settings) as client:
        client.delete_groups([DeadLetterQueue(settings, client).group])


def test_letters_that_are_still_bad_come_back(ready: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """A replay of bad messages ends; each round increases the attempt; letters above the size limit are truncated."""
    topics = Topics(ready)
    now_s = 1_700_000_000
    share = {"type": "share", "user": "ann", "content": "c"}
    with producer(ready) as sender:
        sender.send(topics.share.name, b"no JSON", key=b"k", partition=2)
        # A wrong clock: the event is days after its message. A later replay must refuse it too.
        sender.send(
            topics.share.name, json.dumps({**share, "time": now_s + 200_000}).encode(), timestamp_ms=now_s * 1000
        )
    packed = KafkaProducer(**kafka_arguments(ready), compression_type="gzip", max_request_size=1 << 24)
    large = json.dumps({**share, "time": now_s, "note": "x" * 5_000_000}).encode()
    packed.send(topics.share.name, large).get(30)
    packed.close()
    with worker(ready) as process:
        for attempt in (0, 1, 2):
            wait_for(
                lambda wanted=2 * attempt + 3: len(read_all(ready, [topics.dlq(topics.share).name])) >= wanted,
                60,
                "letters",
            )
            wait_committed(ready)
            found = printed(capsys, "dlq", "show", "share", "--limit", "100")
            newest = [one for one in found if one["attempt"] == attempt and one["cut"] is None]
            assert sorted(one["reason"] for one in newest) == ["json", "time"]
            assert {one["timestamp"] for one in newest if one["reason"] == "time"} == {"2023-11-14T22:13:20.000000Z"}
            (result,) = printed(capsys, "dlq", "replay", "share")
            assert (result["sent"], result["left_out"]) == (2, int(attempt == 0))
        (cut,) = [one for one in found if one["cut"]]
        assert cut["reason"] == "size"
        assert cut["cut"].startswith(f"value={len(large)} ")
        assert f"{MESSAGE_BYTES:,}" in cut["message"]
        assert base64.b64decode(cut["value_base64"]) == large[: 1 << 16]
        assert process.get("/readyz")[0] == 200
