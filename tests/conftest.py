"""What all tests share: one embedded Kafka for the whole session, settings that no other test uses, Hypothesis.

Hypothesis tries the same examples each time, unless another profile is asked for: `pytest tests/properties
--hypothesis-profile thorough` looks further, `make fuzz` at more messages, `make test-fast` at fewer.
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
from streams.settings.settings import PREFIX, Settings
from tests.support.needs import MISSING

_SLOW = [HealthCheck.too_slow]  # a database per example
examples.register_profile(
    "ci", derandomize=True, deadline=None, database=None, max_examples=35, suppress_health_check=_SLOW
)
examples.register_profile(
    "fast", derandomize=True, deadline=None, database=None, max_examples=5, suppress_health_check=_SLOW
)
examples.register_profile("thorough", deadline=None, max_examples=1_000, suppress_health_check=_SLOW)
examples.register_profile("fuzz", deadline=None, database=None, suppress_health_check=list(HealthCheck))
if examples.get_current_profile_name() not in {"fast", "thorough", "fuzz"}:
    examples.load_profile("ci")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add `--fast`, for the minute between two edits."""
    parser.addoption("--fast", action="store_true", help="leave out tests that need a broker or are marked slow")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what `--fast` leaves out."""
    if config.getoption("--fast"):
        slow = [one for one in items if "kafka" in getattr(one, "fixturenames", ()) or one.get_closest_marker("slow")]
        config.hook.pytest_deselected(items=slow)
        items[:] = [one for one in items if one not in slow]


@pytest.fixture(autouse=True, scope="session")
def _own_environment() -> Iterator[None]:
    """The settings of whoever runs the tests must not reach into them."""
    with pytest.MonkeyPatch.context() as patch:
        for name in list(os.environ):
            if name.startswith(PREFIX):
                patch.delenv(name)
        yield


@pytest.fixture(scope="session")
def kafka() -> Iterator[EmbeddedKafka]:
    """A real broker, started by the first test that asks for it; topics are kept apart by `settings.prefix`."""
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
    """Settings of one test that needs no broker: own names, own folder, own port; nobody listens at its broker."""
    return Settings.load(
        broker="127.0.0.1:1", prefix=f"t{uuid.uuid4().hex[:8]}.", datadir=tmp_path / "state", web_port=web_port
    )


@pytest.fixture
def settings(kafka: EmbeddedKafka, offline_settings: Settings) -> Settings:
    """Settings of one test on the session's broker: own topics, own group, own folder, own port."""
    return offline_settings.model_copy(update={"broker": kafka.address})


_not_run: list[str] = []


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Note what was skipped, and why."""
    if report.skipped and isinstance(report.longrepr, tuple):
        _not_run.append(f"{report.nodeid} ({report.longrepr[2]})")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """In CI a run without a tool that a test needs is no good run."""
    if os.environ.get("CI") and any(MISSING in line for line in _not_run) and not session.exitstatus:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_unconfigure(config: pytest.Config) -> None:
    """Print what did not run in the last line, with what it misses; also to the file that NOT_RUN names."""
    if _not_run and not hasattr(config, "workerinput"):
        line = f"not run, {len(_not_run)}: {'; '.join(_not_run)}"
        print(line)  # noqa: T201 - it is the report
        if path := os.environ.get("NOT_RUN"):
            with Path(path).open("a", encoding="utf-8") as file:
                file.write(f"{line}\n")
