"""`forget` on a real broker: no file of any worker contains the person any more, and other users are unchanged."""

from __future__ import annotations

import json
import random
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from graphstate.types import owner
from streams import cli
from streams.kafka.topics import Topics, admin, create
from streams.settings.settings import PREFIX, Settings
from tests.recovery.test_kill import feed
from tests.recovery.test_membership import QUIET_S, STILL_S, Team
from tests.support.histories import NOW_S, history
from tests.support.shards import check_same, undisturbed
from tests.support.workers import read_all, stop_together, wait_for, wait_quiet

SHARDS = 3
EVENTS = 4_000
PERSONS = [f"person-who-leaves-{number:02d}-of-06" for number in range(6)]
LATER_S = NOW_S + 60
SEED = 11


def lives(rng: random.Random) -> Iterator[dict[str, Any]]:
    """Events with every role that a person can have, mixed with events of other users."""
    for event in history(rng, EVENTS, links=True):
        yield event
        when, person = event["time"], rng.choice(PERSONS)
        someone, content = f"u{rng.randrange(200)}", f"c{rng.randrange(300)}"
        own = f"post-{rng.randrange(60)}"
        act = rng.randrange(8)
        if act == 0:
            yield {"type": "follow", "time": when, "user": person, "target": someone}
            yield {"type": "follow", "time": when, "user": someone, "target": person}
        elif act == 1:
            yield {"type": "share", "time": when, "user": person, "content": content, "via": rng.choice(PERSONS)}
        elif act == 2:
            yield {"type": "share", "time": when, "user": someone, "content": own, "via": person}
        elif act == 3:
            yield {"type": "create", "time": when, "user": person, "content": own, "reply_to": content}
        elif act == 4:
            yield {"type": "join", "time": when, "user": person, "community": "k1"}
        elif act == 5:
            yield {"type": "unshare", "time": when, "user": person, "content": content}


def after(persons: list[str]) -> Iterator[dict[str, Any]]:
    """Events of a person who comes back."""
    for number, person in enumerate(persons):
        yield {"type": "create", "time": LATER_S, "user": person, "content": f"new-{number}"}
        yield {"type": "share", "time": LATER_S + 1, "user": "u1", "content": f"new-{number}", "via": person}
        yield {"type": "follow", "time": LATER_S + 2, "user": person, "target": "u2"}


def bytes_found(folders: list[Path], persons: list[str]) -> dict[str, list[str]]:
    """By person, the files that contain the bytes of the id."""
    found: dict[str, list[str]] = {}
    for path in (path for folder in folders for path in folder.rglob("*")):
        try:
            text = path.read_bytes() if path.is_file() else b""
        except FileNotFoundError:  # RocksDB deletes files meanwhile
            continue
        for person in persons:
            if person.encode() in text:
                found.setdefault(person, []).append(path.name)
    return found


class Case(Team):
    """Two workers and the queries of this test."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self.workers = self.workers[:2]

    @property
    def folders(self) -> list[Path]:
        """The data folders of both workers."""
        return [worker.settings.datadir for worker in self.workers]

    def send(self, events: list[dict[str, Any]]) -> None:
        """Send events and wait until all topics are processed."""
        feed(self.settings, events, random.Random(SEED))
        wait_quiet(self.settings, QUIET_S, STILL_S)

    def statuses(self, person: str) -> set[int]:
        """The workers' HTTP statuses for a person, without 421 of a worker that has other shards."""
        return {worker.get(f"/api/v1/users/{person}")[0] for worker in self.workers} - {421}

    def find(self, person: str, patch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> list[dict[str, Any]]:
        """Output of `groundswell state find` for each data folder; only the last run reads the topics."""
        found = []
        for folder in self.folders:
            for name, value in (("broker", self.settings.broker), ("prefix", self.settings.prefix)):
                patch.setenv(PREFIX + name.upper(), value)
            patch.setenv(PREFIX + "SHARDS", str(SHARDS))
            patch.setenv(PREFIX + "DATADIR", str(folder))
            topics = ["--topics"] if folder == self.folders[-1] else []
            assert cli.run(["state", "find", person, "--json", *topics]) == 0
            found.append(json.loads(capsys.readouterr().out))
        return found


@pytest.fixture
def case(settings: Settings) -> Iterator[Case]:
    """Two workers that erase immediately, on three shards."""
    case = Case(settings.model_copy(update={"retention_s": 0, "shards": SHARDS, "erase_within_s": 0.0}))
    with admin(case.settings) as client:
        create(client, case.topics.all())
    for worker in case.workers:
        worker.start()
    try:
        case.wait_all(2)
        yield case
    finally:
        for worker in case.workers:
            worker.kill()


def test_forget_removes_every_trace_of_a_person(
    case: Case,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    record_property: pytest.RecordProperty,
) -> None:
    """No file, answer or score topic has the person, also after a kill; a person who comes back gets a score again."""
    events = list(lives(random.Random(SEED)))
    case.send(events)
    assert set(bytes_found(case.folders, PERSONS)) == set(PERSONS), "the search finds no person: it proves nothing"
    assert all(200 in case.statuses(person) for person in PERSONS)
    assert {owner(person, SHARDS) for person in PERSONS} == set(range(SHARDS))
    check_found(case.find(PERSONS[0], monkeypatch, capsys), before=True)

    forgets = [{"type": "forget", "time": NOW_S + 1, "user": person} for person in PERSONS]
    begin_s = time.monotonic()
    case.send(forgets)
    wait_for(lambda: not bytes_found(case.folders, PERSONS), 30, "the files to be rewritten")
    erased_s = time.monotonic() - begin_s
    assert all(case.statuses(person) == {404} for person in PERSONS)
    found = case.find(PERSONS[0], monkeypatch, capsys)
    check_found(found, before=False)
    searched = sum(folder["files"]["size"] for folder in found)
    record_property("bytes searched", searched)
    record_property("seconds from the forget to clean files", round(erased_s, 2))
    print(f"{searched:,} bytes searched; clean {erased_s:.2f} s after the forget")  # noqa: T201 - with -s

    victim = case.workers[0]
    victim.kill()
    case.wait_all(1)
    victim.start()
    case.wait_all(2)
    wait_for(lambda: not bytes_found(case.folders, PERSONS), 30, "the rebuilt files to be rewritten")
    assert all(case.statuses(person) == {404} for person in PERSONS)
    check_topic(case.settings, case.topics, set(PERSONS))

    back = list(after(PERSONS[:2]))
    case.send(back)
    assert all(200 in case.statuses(person) for person in PERSONS[:2])
    assert set(bytes_found(case.folders, PERSONS)) == set(PERSONS[:2])
    assert stop_together(case.workers) == [0, 0]
    expected = undisturbed(case.settings, [*events, *forgets, *back], case.settings.datadir / "calm")
    assert len(expected[0]) > 300
    check_same(case.settings, case.folders, expected)


def check_found(found: list[dict[str, Any]], *, before: bool) -> None:
    """Check the output of `state find` for a person before and after the forget."""
    shards = [shard for folder in found for shard in folder["shards"] if not shard["wrong"]]
    # The first worker had all shards for a moment: its remains of shards that moved away contain no person.
    every = set(range(SHARDS))
    assert {shard["shard"] for shard in shards} == every
    assert {shard["shard"] for shard in shards if shard["named"]} == (every if before else set()), "mirrors everywhere"
    assert {shard["shard"] for shard in shards if shard["forgotten_s"] is not None} == (set() if before else every)
    assert any(shard["edges"] for shard in shards) is before
    assert {shard["shard"] for shard in shards if shard["owner"]} == {owner(PERSONS[0], SHARDS)}
    assert any(folder["files"]["found"] for folder in found) is before
    assert not any(folder["files"]["compressed"] for folder in found)
    topics = {topic["topic"].partition(".")[2]: topic for topic in found[-1]["topics"]}
    score = topics["influence.score.v1"]
    assert score["newest"] == ("score" if before else "tombstone")
    # What forget does not reach, and the report on it.
    assert topics["groundswell.mutations"]["naming"] > 0
    assert topics["groundswell.mutations"]["until_s"] is None
    assert topics["influence.share.v1"]["naming"] > 0
    assert topics["influence.share.v1"]["until_s"] > time.time()
    assert topics["influence.follow.v1.dlq"]["naming"] == 0


def check_topic(settings: Settings, topics: Topics, gone: set[str]) -> None:
    """Check that the last record of each of these users on the score topic is a tombstone."""
    last = {record.key.decode(): record.value for record in read_all(settings, [topics.score.name])}
    assert {person: last[person] for person in gone} == dict.fromkeys(gone)
