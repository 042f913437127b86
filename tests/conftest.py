"""Fixtures of all tests: one embedded Kafka per session, settings of each test, and the profiles of Hypothesis.

By default Hypothesis generates the same examples in each run. `pytest tests/properties --hypothesis-profile thorough`
generates more, `make fuzz` far more messages, `make test-fast` fewer.
"""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck
from hypothesis import settings as examples

from streams.embedded import EmbeddedKafka
from streams.kafka.topics import Topics, admin, create
from streams.settings.settings import PREFIX, Settings
from tests.support.needs import MISSING
from tests.support.workers import set_environment

_SLOW = [HealthCheck.too_slow]  # each example opens a database
examples.register_profile(
    "ci", derandomize=True, deadline=None, database=None, max_examples=25, suppress_health_check=_SLOW
)
examples.register_profile(
    "fast", derandomize=True, deadline=None, database=None, max_examples=5, suppress_health_check=_SLOW
)
examples.register_profile("thorough", deadline=None, max_examples=1_000, suppress_health_check=_SLOW)
examples.register_profile("fuzz", deadline=None, database=None, suppress_health_check=list(HealthCheck))
if examples.get_current_profile_name() not in {"fast", "thorough", "fuzz"}:
    examples.load_profile("ci")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option `--fast`, for runs between two edits."""
    parser.addoption("--fast", action="store_true", help="leave out tests that need a broker or are marked slow")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect the tests that `--fast` leaves out."""
    if config.getoption("--fast"):
        slow = [
            item for item in items if "kafka" in getattr(item, "fixturenames", ()) or item.get_closest_marker("slow")
        ]
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in slow]


@pytest.fixture(autouse=True, scope="session")
def _own_environment() -> Iterator[None]:
    """Remove the settings in the caller's environment, so that they do not affect tests."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(PREFIX):
                patch.delenv(name)
        yield


@pytest.fixture(scope="session")
def kafka() -> Iterator[EmbeddedKafka]:
    """A real broker, started by the first test that uses it; `settings.prefix` separates the topics of tests."""
    with EmbeddedKafka() as broker:
        yield broker


@pytest.fixture
def web_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def offline_settings(tmp_path: Path, web_port: int) -> Settings:
    """Settings of a test without a broker: own names, folder and port; no broker listens at its address."""
    return Settings.load(
        broker="127.0.0.1:1", prefix=f"t{uuid.uuid4().hex[:8]}.", datadir=tmp_path / "state", web_port=web_port
    )


@pytest.fixture
def settings(kafka: EmbeddedKafka, offline_settings: Settings) -> Settings:
    """Settings of a test on the session's broker: own topics, group, folder and port."""
    return offline_settings.model_copy(update={"broker": kafka.address})


@pytest.fixture
def in_environment(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The settings, also in the environment, as a command reads them."""
    set_environment(monkeypatch, settings)
    return settings


@pytest.fixture
def ready(in_environment: Settings) -> Settings:
    """The settings, also in the environment; all topics exist."""
    with admin(in_environment) as client:
        create(client, Topics(in_environment).all())
    return in_environment


_not_run: list[str] = []


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Record skipped tests with the reason."""
    if report.skipped and isinstance(report.longrepr, tuple):
        _not_run.append(f"{report.nodeid} ({report.longrepr[2]})")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run with NEED_TOOLS set if a test was skipped because a tool is missing."""
    if os.environ.get("NEED_TOOLS") and any(MISSING in line for line in _not_run) and not session.exitstatus:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_unconfigure(config: pytest.Config) -> None:
    """Print the skipped tests with their reasons as the last line, also to the file in NOT_RUN."""
    if _not_run and not hasattr(config, "workerinput"):
        line = f"not run, {len(_not_run)}: {'; '.join(_not_run)}"
        print(line)  # noqa: T201 - pytest prints its report
        if path := os.environ.get("NOT_RUN"):
            with Path(path).open("a", encoding="utf-8") as file:
                file.write(f"{line}\n")
