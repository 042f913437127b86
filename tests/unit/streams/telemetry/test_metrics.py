"""The freshness histogram, and the registry."""

from __future__ import annotations

import math
from itertools import product

import numpy as np
import pytest
from prometheus_client.parser import text_string_to_metric_families

from streams.messages.events import REASONS
from streams.telemetry.metrics import HALF_S, Freshness, Metrics, RecentMaximum


def test_quantiles() -> None:
    """Quantiles lie within a bucket (26 %) of the true ones."""
    freshness = Freshness()
    seconds = np.random.default_rng(1).lognormal(-3, 1, 10_000)
    for some in np.split(seconds, 10):
        freshness.observe(some)
    assert freshness.count == 10_000
    for q in (0.01, 0.5, 0.9, 0.99):
        assert freshness.quantile(q) == pytest.approx(float(np.quantile(seconds, q)), rel=0.27)


def test_extremes() -> None:
    """A negative time counts as 0, hours as the last bucket; without observations the quantile is nan."""
    freshness = Freshness()
    assert math.isnan(freshness.quantile(0.5))
    freshness.observe(np.array([-5.0, -0.1]))
    assert freshness.quantile(1.0) <= 0.001
    freshness.observe(np.array([1e6]))
    assert freshness.quantile(1.0) == 1_000
    assert freshness.count == 3


def test_text_agrees() -> None:
    """The text format holds the same counts, cumulated, and the sum."""
    metrics = Metrics()
    metrics.freshness.observe(np.array([0.5, 0.02, 0.02, 5_000]))
    samples = {
        (sample.name, sample.labels.get("le")): sample.value
        for family in text_string_to_metric_families(metrics.text().decode())
        for sample in family.samples
    }
    name = Freshness.NAME
    assert samples[name + "_count", None] == 4
    assert samples[name + "_sum", None] == pytest.approx(5_000.54)
    assert samples[name + "_bucket", "0.01"] == 0
    assert samples[name + "_bucket", "0.1"] == 2
    assert samples[name + "_bucket", "1000"] == 3
    assert samples[name + "_bucket", "+Inf"] == 4


def test_two_workers_do_not_share() -> None:
    """Each Metrics has a registry of its own."""
    one, other = Metrics(), Metrics()
    one.scores.inc()
    assert b"groundswell_scores_total 1.0" in one.text()
    assert b"groundswell_scores_total 0.0" in other.text()


def test_counters_begin_at_zero() -> None:
    """Each input topic has a series for each reason, and each outcome one, before anything happened."""
    metrics = Metrics(["follow", "share"])
    samples = {
        (sample.name, *sample.labels.values()): sample.value
        for family in metrics.registry.collect()
        for sample in family.samples
    }
    letters = [key for key in samples if key[0] == "groundswell_dead_letters_total"]
    assert sorted(key[1:] for key in letters) == sorted(product(("follow", "share"), REASONS))
    for outcome in ("applied", "expired", "facts"):
        assert samples["groundswell_mutations_total", outcome] == 0
    for outcome in ("fine", "healed", "failed", "skipped"):
        assert samples["groundswell_audit_nodes_total", outcome] == 0
    assert all(samples[key] == 0 for key in letters)


def test_labels_are_those_of_the_samples() -> None:
    """The recorded names of labels are those of the samples."""
    metrics = Metrics(["follow"])
    assert metrics.labels["groundswell_dead_letters_total"] == ("topic", "reason")
    assert metrics.labels["groundswell_scores_total"] == ()
    for family in metrics.registry.collect():
        for sample in family.samples:
            if sample.name in metrics.labels:
                assert tuple(sample.labels) == metrics.labels[sample.name]


def test_a_recent_maximum_falls() -> None:
    """A maximum is kept for 5 to 10 minutes."""
    now = [0.0]
    largest = RecentMaximum(lambda: now[0])
    assert largest.observe(0.5) == 0.5
    assert largest.observe(0.1) == 0.5
    now[0] = HALF_S + 1
    assert largest.observe(0.2) == 0.5
    now[0] = 2 * HALF_S + 2
    assert largest.observe() == 0.2
    now[0] = 5 * HALF_S
    assert largest.observe() == 0.0
