"""Calculations of the worker's benchmark: from samples, from Kafka's log, and for the page."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from graphstate.types import Kind, Mutation
from streams.messages.events import mutations
from streams.telemetry.metrics import Freshness
from tests.bench import e2e, e2e_answers, e2e_figures, report
from tests.bench.e2e_answers import Asked, Published, matched
from tests.bench.e2e_feed import messages
from tests.bench.e2e_figures import Moment
from tests.load.rig import WORK, Sample

METRICS = """
# HELP groundswell_batch_seconds Time of a micro-batch, by stage
groundswell_batch_seconds_bucket{le="0.001",stage="step"} 3.0
groundswell_batch_seconds_count{stage="step"} 4.0
groundswell_batch_seconds_sum{stage="step"} 2.5
groundswell_batch_mutations_sum 4000.0
groundswell_scores_total 70.0
groundswell_scores_created 1.7e+09
groundswell_thread_cpu_seconds_total{thread="rocksdb:low"} 0.25
"""
NOW_MS = 2_000_000_000_000


def moment(at_s: float, done: int, *, worker_mb: float = 500.0) -> Moment:
    """A sample of a worker that uses 100 µs per event, half of them in layer 2, in micro-batches of 10."""
    counts = np.zeros(len(Freshness.BOUNDS_S) + 1)
    counts[int(np.searchsorted(Freshness.BOUNDS_S, 0.02)) :] = done
    seconds = done * 1e-4
    work = {
        "batch_mutations_sum": done,
        "batch_mutations_count": done / 10,
        "batch_seconds_sum layer2": seconds / 2,
        "batch_seconds_sum step": seconds * 0.75,
        "batch_seconds_sum commit": seconds / 10,
        "ingest_seconds_sum decode": seconds / 20,
        "scores_total": 3.0 * done,
        "thread_cpu_seconds_total shard": seconds * 0.7,
        "thread_cpu_seconds_total rocksdb:low": seconds * 0.001,
        "thread_cpu_seconds_total idle": 0.0,
    }
    rss_mb = {"w0": worker_mb, "broker": 300.0}
    cpu_s = {"w0": seconds, "broker": seconds / 4}
    sample = Sample(at_s, rss_mb, {}, 0, done, {"user": 10}, cpu_s, work, counts)
    return Moment(sample, busy_s=2 * seconds, feeder_s=seconds / 4)


def test_work_is_read_from_the_metrics() -> None:
    """Sums and counts with their stage, and the scores; no buckets and no creation times."""
    found = {f"{name} {label}".rstrip(): float(value) for name, label, value in WORK.findall(METRICS)}
    assert found == {
        "batch_seconds_count step": 4.0,
        "batch_seconds_sum step": 2.5,
        "batch_mutations_sum": 4000.0,
        "scores_total": 70.0,
        "thread_cpu_seconds_total rocksdb:low": 0.25,
    }


def test_figures_cover_the_time_between_two_moments() -> None:
    """Per second, per event, and as a share; earlier work does not count."""
    found = e2e_figures.figures(moment(10.0, 5_000), moment(20.0, 25_000))
    assert found["events_per_s"] == 2_000
    assert found["mean_batch"] == 10
    assert found["scores_per_event"] == 3
    assert found["cpu_us_per_event"] == {"w0": 100, "broker": 25, "feeder": 25}
    assert found["cores"] == {"w0": 0.2, "broker": 0.05, "feeder": 0.05}
    assert found["others_cores"] == 0.1
    assert found["stage_us_per_event"]["layer2"] == 50
    assert found["stage_us_per_event"]["thread"] == 25
    assert found["stage_us_per_event"]["commit"] == 10
    assert found["stage_us_per_event"]["ingest: decode"] == 5
    assert found["stage_share"]["layer2"] == pytest.approx(0.1)
    assert found["thread_us_per_event"] == {"shard": 70, "rocksdb:low": 0.1}
    assert found["thread_share"]["shard"] == pytest.approx(0.14)


def test_a_backlog_is_timed_until_its_last_event_is_processed() -> None:
    """The time starts at the first moment and includes the ingest; samples after the end do not count."""
    course = [(0.0, 0), (5.0, 0), (6.0, 100), (7.0, 100), (8.0, 300), (9.0, 300)]
    first, last = e2e_figures.until_done([moment(*one) for one in course])
    assert (first.sample.at_s, last.sample.at_s) == (0.0, 8.0)
    with pytest.raises(ValueError, match="nothing"):
        e2e_figures.until_done([moment(*one) for one in course[:2]])


def test_thirds_show_slowdown_and_growth() -> None:
    """The ratio of the last third to the first, of throughput and memory."""
    flat = e2e_figures.thirds([moment(10.0 * n, 1_000 * n) for n in range(9)])
    assert flat["rate_ratio"] == 1
    assert flat["memory_ratio"] == {"w0": 1, "broker": 1}
    rising = [moment(10.0 * n, 1_000 * n - 50 * n * n, worker_mb=500 + 10 * n) for n in range(9)]
    found = e2e_figures.thirds(rising)
    assert found["rate_ratio"] < 0.4
    assert found["memory_ratio"]["w0"] == pytest.approx(570 / 510, abs=0.001)


def test_memory_per_edge_is_a_difference_of_two_states() -> None:
    """Two states with equal users are needed; without them there is no value."""
    states = [{"users": 0, "follows": 0, "rss_mb": 250.0}, {"users": 10, "follows": 1 << 20, "rss_mb": 300.0}]
    assert e2e_figures.slope(states) is None
    assert e2e_figures.slope([*states, {"users": 10, "follows": 2 << 20, "rss_mb": 340.0}]) == 40.0


def test_an_answer_is_the_score_as_of_the_event_from_its_own_step() -> None:
    """A later score or one of another step is no answer, and an event at a tick has none."""
    event = Asked(b"u1", 1_000_010, 5_000, "share:2", 7)
    score = Published(b"u1", 1_000_010, 5_250, 41)
    before = Published(b"u9", 900_000, 5_100, 40)
    packed = {("share:2", 7): 40}
    assert matched([event], packed, [before, score, score._replace(appended_ms=9_000)]).seconds == [0.25]
    # Published in the step after the event's own, which published nothing for that user.
    assert matched([event], packed, [before, score._replace(step=41), score._replace(step=45)]).seconds == [0.25]
    later = matched([event], packed, [before, Published(b"u8", 1, 5_200, 41), score._replace(step=45)])
    assert (later.seconds, later.events) == ([], 1)
    with pytest.raises(RuntimeError, match="no event is in a pack"):
        matched([event._replace(source="another:0")], packed, [before, score])
    assert matched([event], {}, [before, score]).seconds == []
    assert (
        matched([event._replace(time=e2e_answers.TICK_US)], packed, [score._replace(as_of=e2e_answers.TICK_US)]).seconds
        == []
    )
    assert matched([event], packed, [score._replace(user=b"u2")]).quantiles_ms() == [None, None, None]


def test_quantiles_are_taken_over_the_answers() -> None:
    """In milliseconds; events without an answer do not count."""
    found = e2e_answers.Answers([number / 1_000 for number in range(1_001)], 1_001)
    assert found.quantiles_ms() == [500.0, 990.0, 999.0]


def test_messages_carry_the_updates() -> None:
    """JSON, the right topic, the user as the key; the event's time is preserved."""
    updates = [
        Mutation(Kind.FOLLOW, 1_700_000_000_010_000, "u1", "u2"),
        Mutation(Kind.SHARE, 1_700_000_000_020_000, "u3", "c1", "u4"),
        Mutation(Kind.CREATE, 1_700_000_000_030_000, "u5", "c2"),
    ]
    sent = list(messages(updates))
    assert [(one.kind, one.key) for one in sent] == [("follow", b"u1"), ("share", b"u3"), ("create", b"u5")]
    assert [one for message in sent for one in mutations(message.value, message.kind, NOW_MS)] == updates


def test_busy_time_excludes_idle_and_waiting(tmp_path: Path) -> None:
    """The sum of the first line of /proc/stat without idle and iowait."""
    stat = tmp_path / "stat"
    stat.write_text("cpu  100 100 200 5000 300 0 0 100 0 0\ncpu0 1 1 1 1 1 1 1 1 0 0\n")
    assert e2e_figures.machine_busy_s(stat) == 500 / e2e_figures.TICKS_PER_S


def results() -> dict[str, object]:
    """The results of a whole run."""
    machine = {
        "cpu": "A",
        "cores": 2,
        "load": 0.1,
        "python": "3",
        "numba": "1",
        "rocksdict": "1",
        "aiokafka": "1",
        "when": "",
    }
    about = {"what": "Some users", "machine": machine, "others_cores": 0.1}
    figures = e2e_figures.figures(moment(0.0, 0), moment(10.0, 20_000))
    rate = {
        "rate": 100.0,
        "freshness_ms": [1.0, 2.0, 3.0],
        "by_kafka_ms": [None] * 3,
        "answered": 0,
        "asked": 9,
        "in_flight": 2,
    }
    state = {
        "users": 0,
        "follows": 0,
        "ready_s": 5.0,
        "rss_mb": 250.0,
        "bytes_per_user": None,
        "phases": {"nodes": 1.0},
    }
    thirds = e2e_figures.thirds([moment(10.0 * n, 1_000 * n) for n in range(9)])
    return {
        "throughput": {**about, **figures, "ceilings": {"bare loop": 90_000}},
        "freshness": {**about, "rates": [{**figures, **rate}]},
        "sustained": {**about, **figures, "thirds": thirds},
        "start": {**about, "states": [state], "bytes_per_edge": 1_234.5},
    }


def test_the_section_shows_everything_measured(tmp_path: Path) -> None:
    """No placeholder of the template is left, and the rest of the page stays, also after repeated writes."""
    page = tmp_path / report.PAGE
    page.write_text("# Benchmarks\n\nText.\n\n## Further runs\n\nMore.\n")
    report.save(e2e.RESULTS, results(), tmp_path)
    e2e.write(tmp_path, page, "A remark.")
    text = page.read_text()
    assert not [line for line in text.splitlines() if line.startswith("<")]
    for part in (
        "| 100/s |",
        "| layer2 | 50 (10.0%) |",
        "| shard | 70 (14.0%) |",
        "| shard, processor µs/event | 70 | 70 | 1 |",
        "A remark.",
        "1,234.5 bytes",
        "| bare loop | 90,000 | 45.0 × |",
    ):
        assert part in text
    assert text.startswith("# Benchmarks\n\nText.\n\n## Further runs\n\nMore.\n")
    e2e.write(tmp_path, page, "A remark.")
    assert page.read_text() == text


def test_a_section_is_replaced_in_place() -> None:
    """The text before and after it stays."""
    page = f"# P\n\nA.\n\n{report.WORKER}\n\nold\n\n| a |\n\n## Next\n\nB.\n"
    new = report.with_section(page, "new")
    assert new == page.replace("old\n\n| a |", "new")
    assert report.section(new) == "new"
    assert report.section("# P\n") == ""


def test_parts_that_were_not_run_are_marked() -> None:
    """A section can be written from a single part."""
    text = e2e_figures.page({"start": results()["start"]}, "<FRESHNESS>|<COST>|<SLOPE>", "")
    assert text == "Not run yet.|Not run yet.|1,234.5 bytes"


def test_the_options_choose_the_parts() -> None:
    """All parts by default, the named ones with --part, none with --only-minutes."""
    assert e2e.parse([]).part == e2e.PARTS
    assert e2e.parse(["--part", "start"]).part == ["start"]
    assert e2e.parse(["--minutes", "10", "--only-minutes"]).part == ()
    plan = e2e.planned(e2e.parse(["--quick", "--start", "1000000", "--rate", "20"]))
    assert plan.rates == (20.0,)
    assert plan.starts[-1] == e2e.Size(1_000_000, 10_000_000)
