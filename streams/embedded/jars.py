"""The jars of the embedded Kafka: pinned in kafka.lock with checksums, fetched once by jgo, checked at every start.

The lock holds one line per jar: `group:artifact:version size sha256`. Because it is complete, no
POM is read: each jar is asked for by its coordinates. jgo's own lock file pins versions for an
environment that it builds itself and does not compare checksums when it uses its cache, so the
comparison is ours.
"""

from __future__ import annotations

import fcntl
import hashlib
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from streams.errors import EmbeddedKafkaError, one_line
from streams.settings import user_cache

LOCK = Path(__file__).with_name("kafka.lock")
# What the lock is resolved from: Kafka's server, and a logger so that it can say what is wrong.
ROOTS = ("org.apache.kafka:kafka_2.13:4.3.0", "org.slf4j:slf4j-simple:1.7.36")
TRIES = 3
CONNECTIONS = 6
TIMEOUT_S = 30

Progress = Callable[[int, int], None]
"""Called with the bytes fetched so far and the bytes to fetch."""


@dataclass(frozen=True)
class Jar:
    """One pinned jar."""

    coordinates: str
    size: int
    sha256: str

    def path(self, repository: Path) -> Path:
        """Where the jar lies in a Maven repository folder."""
        group, artifact, version = self.coordinates.split(":")
        return repository.joinpath(*group.split("."), artifact, version, f"{artifact}-{version}.jar")

    def intact(self, repository: Path) -> bool:
        """Whether the jar is there with the pinned content."""
        path = self.path(repository)
        if not path.is_file() or path.stat().st_size != self.size:
            return False
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == self.sha256


def read_lock(path: Path = LOCK) -> list[Jar]:
    """The pinned jars. Raises EmbeddedKafkaError if a line is malformed."""
    jars = []
    for line in path.read_text(encoding="utf-8").splitlines():
        if not line or line.startswith("#"):
            continue
        try:
            coordinates, size, sha256 = line.split(" ")
            jar = Jar(coordinates, int(size), sha256)
            jar.path(Path())
        except ValueError as error:
            message = f"{path.name} has a malformed line ({line!r}); restore the file"
            raise EmbeddedKafkaError(message) from error
        jars.append(jar)
    return jars


def classpath(progress: Progress | None = None, repository: Path | None = None, lock: Path = LOCK) -> list[Path]:
    """The paths of all jars, each checked against the lock; what is missing is fetched first.

    Args:
        progress: told the bytes while fetching; not called when everything is there.
        repository: where jars are kept; jgo's default (shared by all projects of a user) if None.
        lock: the file with the pins.

    Raises:
        EmbeddedKafkaError: a jar cannot be fetched or is not what the lock says.
    """
    jars = read_lock(lock)
    repository = repository or _default_repository(jars)
    if not all(jar.intact(repository) for jar in jars):
        with _alone(repository):
            _fetch([jar for jar in jars if not jar.intact(repository)], repository, progress)
    return [jar.path(repository) for jar in jars]


def _default_repository(jars: list[Jar]) -> Path:
    """The folder of jgo, or one of our own where that cannot be had: read-only without the jars, or without a home."""
    from jgo.config import GlobalSettings

    try:
        repository: Path | None = Path(GlobalSettings.load().repo_cache)
    except RuntimeError:  # pathlib's, where there is no home folder
        repository = None
    if repository is not None and (user_cache.usable(repository) or _all_intact(jars, repository)):
        return repository
    own = user_cache.folder("jars")
    if own is None:
        tried = repository or "the home folder, which is not known"
        raise EmbeddedKafkaError(
            f"there is no folder for Kafka's jars: neither {tried} nor the temporary folder can be written; set HOME "
            "to a folder that can"
        )
    return own


def _all_intact(jars: list[Jar], repository: Path) -> bool:
    try:
        return all(jar.intact(repository) for jar in jars)
    except OSError:  # it may not be looked into
        return False


@contextmanager
def _alone(repository: Path) -> Iterator[None]:
    """Hold the repository's lock: jgo writes a jar in place, so two processes must not fetch the same one."""
    repository.mkdir(parents=True, exist_ok=True)
    with (repository / ".groundswell-fetch").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _fetch(jars: list[Jar], repository: Path, progress: Progress | None) -> None:
    meter = _Meter(sum(jar.size for jar in jars), progress)
    context = _context(repository, meter)
    with ThreadPoolExecutor(CONNECTIONS, thread_name_prefix="jars") as pool:
        list(pool.map(lambda jar: _fetch_one(jar, repository, context), jars))
    meter.finish()


def _fetch_one(jar: Jar, repository: Path, context: Any) -> None:
    problem = "it does not match its checksum"
    for _ in range(TRIES):
        # A file cut short by an earlier interruption would be taken for the jar.
        jar.path(repository).unlink(missing_ok=True)
        try:
            context.create_dependency(jar.coordinates).artifact.resolve()
        except (OSError, RuntimeError) as error:  # requests' errors are OSErrors, jgo's RuntimeErrors
            problem = one_line(error)[:200]
            continue
        if jar.intact(repository):
            return
        problem = "it does not match its checksum"
    jar.path(repository).unlink(missing_ok=True)
    message = f"{jar.coordinates} cannot be fetched: {problem}; check the network (or proxy) and try again"
    raise EmbeddedKafkaError(message)


def _context(repository: Path | None, meter: _Meter | None) -> Any:
    from jgo.maven import MavenContext, PythonResolver

    resolver = PythonResolver(progress_callback=meter.file if meter else None)
    return MavenContext(resolver=resolver, repo_cache=repository, timeout=TIMEOUT_S)


class _Meter:
    """Adds up the bytes of parallel downloads for one progress callback."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self._total = total
        self._done = 0
        self._progress = progress or (lambda _done, _total: None)
        self._lock = threading.Lock()
        self._progress(0, total)

    @contextmanager
    def file(self, _name: str, _size: int) -> Iterator[Callable[[int], None]]:
        """Jgo's callback: yields what is called with the size of each chunk."""
        yield self.add

    def add(self, size: int) -> None:
        """Count `size` bytes more; a repeated download never shows more than all."""
        with self._lock:
            self._done = min(self._total, self._done + size)
            self._progress(self._done, self._total)

    def finish(self) -> None:
        """Everything is there."""
        with self._lock:
            if self._done == self._total:
                return
            self._done = self._total
            self._progress(self._done, self._total)


def write_lock(roots: Iterable[str] = ROOTS, path: Path = LOCK) -> int:
    """Resolve `roots` with everything they need and write the lock; returns the number of jars."""
    context = _context(None, None)
    direct, transitive = context.resolver.resolve([context.create_dependency(root) for root in roots])
    lines = []
    for dependency in [*direct, *transitive]:
        jar = dependency.artifact.resolve()
        coordinates = f"{dependency.groupId}:{dependency.artifactId}:{dependency.version}"
        lines.append(f"{coordinates} {jar.stat().st_size} {hashlib.sha256(jar.read_bytes()).hexdigest()}")
    head = [
        "# Apache Kafka with what it needs, and a logger: coordinates, size in bytes, SHA-256 of each jar.",
        "# Made by: python -m streams.embedded lock",
    ]
    path.write_text("\n".join([*head, *sorted(lines)]) + "\n", encoding="utf-8")
    return len(lines)
