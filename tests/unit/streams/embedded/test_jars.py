"""The pinned jars: the lock is complete, and a wrong or missing file is never used."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import pytest

from streams.embedded import jars
from streams.errors import EmbeddedKafkaError

CONTENT = b"a jar"
GOOD = jars.Jar("org.example:thing:1.0", len(CONTENT), hashlib.sha256(CONTENT).hexdigest())


class FakeContext:
    """A stand-in for jgo's context: `resolve` writes the next of `contents` to the path of the jar."""

    def __init__(self, jar: jars.Jar, repository: Path, contents: list[bytes | Exception]) -> None:
        self._path = jar.path(repository)
        self._contents = contents
        self.artifact = self

    def create_dependency(self, _coordinates: str) -> FakeContext:
        """Return this object, which is dependency, artifact and context at once."""
        return self

    def resolve(self) -> Path:
        """Fetch as jgo does: a file that exists is taken as it is."""
        if not self._path.exists():
            content = self._contents.pop(0)
            if isinstance(content, Exception):
                raise content
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._path.write_bytes(content)
        return self._path


def write_lock(path: Path, *lines: str) -> Path:
    """Write a lock file with these lines."""
    path.write_text("\n".join(("# head", *lines)) + "\n")
    return path


def test_the_lock_is_whole() -> None:
    """Every line has coordinates, a size and a SHA-256, no jar twice, Kafka and a logger among them."""
    pinned = jars.read_lock()
    names = [jar.coordinates.rpartition(":")[0] for jar in pinned]
    assert len(names) == len(set(names))
    assert set(jars.ROOTS) <= {jar.coordinates for jar in pinned}
    assert all(len(jar.sha256) == 64 and jar.size > 0 for jar in pinned)


@pytest.mark.parametrize("line", ["org.example:thing:1.0", "org.example:thing 3 ab", "a:b:1 many ab"])
def test_a_malformed_lock_is_refused(tmp_path: Path, line: str) -> None:
    """A line without all its parts is an error that names it."""
    with pytest.raises(EmbeddedKafkaError, match="malformed"):
        jars.read_lock(write_lock(tmp_path / "kafka.lock", line))


def fetched(monkeypatch: pytest.MonkeyPatch, folder: Path, contents: list[bytes | Exception]) -> list[Path]:
    """Return the class path of a lock with one jar, from a source that returns these contents one after the other."""
    lock = write_lock(folder / "kafka.lock", f"{GOOD.coordinates} {GOOD.size} {GOOD.sha256}")
    context = FakeContext(GOOD, folder / "repository", contents)

    def stand_in(_repository: Path | None, _meter: Any) -> FakeContext:
        return context

    monkeypatch.setattr(jars, "_context", stand_in)
    return jars.classpath(repository=folder / "repository", lock=lock)


def test_fetches_once(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An existing jar with the right checksum is not fetched again."""
    first = fetched(monkeypatch, tmp_path, [CONTENT])
    assert first == fetched(monkeypatch, tmp_path, [])
    assert first[0].read_bytes() == CONTENT


def test_a_broken_file_is_fetched_anew(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """An incomplete file, a network error and a wrong content are retried."""
    path = GOOD.path(tmp_path / "repository")
    path.parent.mkdir(parents=True)
    path.write_bytes(CONTENT[:2])
    assert fetched(monkeypatch, tmp_path, [OSError("reset"), b"not it", CONTENT]) == [path]


def test_a_wrong_content_is_never_used(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A jar that stays wrong is an error and is removed."""
    with pytest.raises(EmbeddedKafkaError, match="checksum"):
        fetched(monkeypatch, tmp_path, [b"evil!"] * jars.TRIES)
    assert not GOOD.path(tmp_path / "repository").exists()
