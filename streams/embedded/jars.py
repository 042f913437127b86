"""The jars of the embedded Kafka: pinned in kafka.lock with checksums, fetched once by jgo, verified at every start.

The lock holds one line per jar: `group:artifact:version size sha256`. It is complete, so no POM is read: each jar is
fetched by its coordinates. jgo does not verify the checksums of jars in its cache, so this module does.
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
# The lock is resolved from these: Kafka's server, and a logger for its messages.
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
        """Return the path of the jar in a Maven repository folder."""
        group, artifact, version = self.coordinates.split(":")
        return repository.joinpath(*group.split("."), artifact, version, f"{artifact}-{version}.jar")

    def intact(self, repository: Path) -> bool:
        """Return whether the jar exists with the pinned content."""
        path = self.path(repository)
        if not path.is_file() or path.stat().st_size != self.size:
            return False
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == self.sha256


def read_lock(path: Path = LOCK) -> list[Jar]:
    """Read the pinned jars.

    Raises:
        EmbeddedKafkaError: a line is malformed.
    """
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
    """Return the paths of all jars, each verified against the lock; fetches missing jars first.

    Args:
        progress: called with the bytes while jars are fetched.
        repository: folder of the jars; None: jgo's default, shared by all projects of a user.
        lock: the lock file.

    Raises:
        EmbeddedKafkaError: a jar cannot be fetched, or its checksum differs from the lock.
    """
    jars = read_lock(lock)
    repository = repository or _default_repository(jars)
    if not all(jar.intact(repository) for jar in jars):
        with _locked(repository):
            _fetch([jar for jar in jars if not jar.intact(repository)], repository, progress)
    return [jar.path(repository) for jar in jars]


def _default_repository(jars: list[Jar]) -> Path:
    """Return jgo's folder, or a cache folder of this user if jgo's is missing, or read-only and without the jars."""
    from jgo.config import GlobalSettings

    try:
        repository: Path | None = Path(GlobalSettings.load().repo_cache)
    except RuntimeError:  # pathlib's, where there is no home folder
        repository = None
    if repository is not None and (user_cache.usable(repository) or _all_intact(jars, repository)):
        return repository
    cache = user_cache.folder("jars")
    if cache is None:
        tried = repository or "the home folder, which is unknown,"
        raise EmbeddedKafkaError(
            f"no folder for Kafka's jars: neither {tried} nor the temporary folder can be written; set HOME to a "
            "writable folder"
        )
    return cache


def _all_intact(jars: list[Jar], repository: Path) -> bool:
    try:
        return all(jar.intact(repository) for jar in jars)
    except OSError:  # no permission to read it
        return False


@contextmanager
def _locked(repository: Path) -> Iterator[None]:
    """Hold the repository's lock: jgo writes jars in place, so two processes must not fetch the same jar."""
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
        # jgo would use the incomplete file of an interrupted download.
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
    """Sums the bytes of parallel downloads for one progress callback."""

    def __init__(self, total: int, progress: Progress | None) -> None:
        self._total = total
        self._done = 0
        self._progress = progress or (lambda _done, _total: None)
        self._lock = threading.Lock()
        self._progress(0, total)

    @contextmanager
    def file(self, _name: str, _size: int) -> Iterator[Callable[[int], None]]:
        """Provide jgo's callback: yields a function that is called with the size of each chunk."""
        yield self.add

    def add(self, size: int) -> None:
        """Add `size` bytes; the sum never exceeds the total, even if a download is repeated."""
        with self._lock:
            self._done = min(self._total, self._done + size)
            self._progress(self._done, self._total)

    def finish(self) -> None:
        """Report the total as fetched."""
        with self._lock:
            if self._done == self._total:
                return
            self._done = self._total
            self._progress(self._done, self._total)


def write_lock(roots: Iterable[str] = ROOTS, path: Path = LOCK) -> int:
    """Resolve `roots` with all dependencies and write the lock; returns the number of jars."""
    context = _context(None, None)
    direct, transitive = context.resolver.resolve([context.create_dependency(root) for root in roots])
    lines = []
    for dependency in [*direct, *transitive]:
        jar = dependency.artifact.resolve()
        coordinates = f"{dependency.groupId}:{dependency.artifactId}:{dependency.version}"
        lines.append(f"{coordinates} {jar.stat().st_size} {hashlib.sha256(jar.read_bytes()).hexdigest()}")
    head = [
        "# Apache Kafka with its dependencies, and a logger: coordinates, size in bytes, SHA-256 of each jar.",
        "# Made by: python -m streams.embedded lock",
    ]
    path.write_text("\n".join([*head, *sorted(lines)]) + "\n", encoding="utf-8")
    return len(lines)
