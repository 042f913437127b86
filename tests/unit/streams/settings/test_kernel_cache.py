"""The folder of compiled kernels if the sources cannot be written: which is chosen, and which is refused."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from streams import cli
from streams.errors import SettingsError
from streams.settings import kernel_cache, user_cache
from streams.settings.settings import PREFIX
from tests.support import tidy

UNSHARE = shutil.which("unshare")


@pytest.fixture
def surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make the sources read-only and unset the variables; home and temporary folder are the test's."""
    monkeypatch.setattr(kernel_cache, "sources_writable", lambda: False)
    monkeypatch.setattr(kernel_cache, "_chosen", [])
    monkeypatch.setattr(user_cache, "SHARED_MEMORY", tmp_path / "shm")
    monkeypatch.setattr(kernel_cache, "sys", type("Sys", (), {"modules": {}}))  # numba of this process stays as it is
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    # Set before it is removed, so that it is removed again after the test.
    monkeypatch.setenv(kernel_cache.VARIABLE, "x")
    monkeypatch.delenv(kernel_cache.VARIABLE)
    for name in ("tmp", "home"):
        (tmp_path / name).mkdir()
    return tmp_path


def no_folder(path: Path) -> None:
    """Write a file in place of a folder: no user can create a folder there, not even root."""
    shutil.rmtree(path, ignore_errors=True)
    path.touch()


def test_a_writable_checkout_stays_as_it_is() -> None:
    """Beside the sources all commands share what is compiled; nothing is set."""
    assert kernel_cache.sources_writable()
    before = os.environ.get(kernel_cache.VARIABLE)
    assert before or kernel_cache.prepare() == "beside the sources"
    assert os.environ.get(kernel_cache.VARIABLE) == before


def test_the_first_folder_that_can_be_written_is_chosen(surroundings: Path) -> None:
    """Data folder, the user's cache, the temporary folder, shared memory."""
    datadir, home, tmp = surroundings / "data", surroundings / "home", surroundings / "tmp"
    own = f"groundswell-kernels-{os.getuid()}"
    for taken, expected in (
        (None, datadir / "kernels"),
        (datadir, home / ".cache" / "groundswell" / "kernels"),
        (home, tmp / own),
        (tmp, surroundings / "shm" / own),
    ):
        if taken is not None:
            no_folder(taken)
        assert str(expected) in kernel_cache.prepare(datadir)
        assert os.environ[kernel_cache.VARIABLE] == str(expected)
        assert expected.is_dir()
    no_folder(surroundings / "shm")
    with pytest.raises(SettingsError, match="set NUMBA_CACHE_DIR to a writable folder"):
        kernel_cache.prepare(datadir)


def test_a_command_without_data_folder_leaves_it_alone(surroundings: Path) -> None:
    """Only a worker and commands that open its state use the data folder."""
    assert "/.cache/" in kernel_cache.prepare()
    assert not (surroundings / "data").exists()


def test_the_operators_folder_is_used(surroundings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NUMBA_CACHE_DIR is used if it can be, and not changed."""
    monkeypatch.setenv(kernel_cache.VARIABLE, str(surroundings / "own"))
    assert kernel_cache.prepare(surroundings / "data") == f"in {surroundings / 'own'} (NUMBA_CACHE_DIR)"
    assert not (surroundings / "data").exists()
    no_folder(surroundings / "own")
    assert "data/kernels" in kernel_cache.prepare(surroundings / "data")


@pytest.mark.parametrize("how", ["writable", "link"])
def test_code_of_others_is_not_run(surroundings: Path, how: str) -> None:
    """A folder in the temporary folder that another user can write, or has put there as a link, is left alone."""
    no_folder(surroundings / "home")
    folder = surroundings / "tmp" / f"groundswell-kernels-{os.getuid()}"
    if how == "link":
        (surroundings / "theirs").mkdir()
        folder.symlink_to(surroundings / "theirs")
    else:
        folder.mkdir()
        folder.chmod(0o777)
    assert "shm" in kernel_cache.prepare()


def test_without_home_and_name_no_folder_is_called_tilde(surroundings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user without HOME and an entry in the list of users has no cache, and none is made where the command runs."""

    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.chdir(surroundings)
    monkeypatch.setattr(Path, "home", no_home)
    assert "tmp" in kernel_cache.prepare()
    assert not (surroundings / "~").exists()


def test_every_command_asks_before_it_compiles(monkeypatch: pytest.MonkeyPatch) -> None:
    """All commands except those of `WITHOUT_KERNELS` prepare the folder when they are loaded."""
    asked: list[str] = []
    monkeypatch.setattr(kernel_cache, "prepare", lambda *_: asked.append("asked") or "")
    for name, entry in cli.available().items():
        asked.clear()
        cli.LazyCommand(name, entry).load()
        assert bool(asked) == (name not in cli.WITHOUT_KERNELS), name


@pytest.mark.slow
def test_a_read_only_checkout(tmp_path: Path) -> None:
    """Also without a home folder: `doctor` imports the kernels and reports their folder."""
    copy, tmp = tmp_path / "checkout", tmp_path / "tmp"
    tmp.mkdir()
    for package in tidy.PACKAGES:
        shutil.copytree(tidy.ROOT / package, copy / package, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-B", "-m", "streams.cli", "doctor", "--json"]
    if os.getuid() == 0:
        # Root may write in spite of permissions, but not to what is mounted read-only.
        mount = 'mount --bind "$0" "$0" && mount -o remount,ro,bind "$0" && exec "$@"'
        if UNSHARE is None or subprocess.run([UNSHARE, "-m", "sh", "-c", mount, copy, "true"], check=False).returncode:
            pytest.skip("nothing may be mounted here")
        command = [UNSHARE, "-m", "sh", "-c", mount, str(copy), *command]
    else:
        subprocess.run(["chmod", "-R", "a-w", copy], check=True)
    environment = {name: value for name, value in os.environ.items() if not name.startswith((PREFIX, "NUMBA_", "XDG_"))}
    environment |= {"HOME": "/proc", "TMPDIR": str(tmp), "PYTHONPATH": str(copy)}
    environment |= {PREFIX + "BROKER": "127.0.0.1:1", PREFIX + "DATADIR": str(tmp_path / "data")}
    (tmp_path / "data").mkdir()
    done = subprocess.run(command, env=environment, cwd=tmp, capture_output=True, text=True, timeout=120, check=False)
    subprocess.run(["chmod", "-R", "u+w", copy], check=False)
    assert '"checks"' in done.stdout, done.stderr
    checks = {check["name"]: check for check in json.loads(done.stdout)["checks"]}
    assert checks["kernels"]["ok"]
    assert f"{tmp_path / 'data' / 'kernels'}, because the sources cannot be written" in checks["kernels"]["detail"]
    assert checks["device"]["ok"], checks["device"]
    assert list(tmp.iterdir()) == []


def test_kernels_of_an_image_are_copied(surroundings: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A given folder that cannot be written lends its kernels; older copies are replaced, newer files are kept."""
    image, datadir = surroundings / "image", surroundings / "data"
    (image / "hash").mkdir(parents=True)
    for name in ("f-1.py311.nbi", "f-1.py311.1.nbc", "notes.txt"):
        (image / "hash" / name).write_text("image")
    monkeypatch.setenv(kernel_cache.VARIABLE, str(image))
    usable = user_cache.usable
    monkeypatch.setattr(user_cache, "usable", lambda path: path != image and usable(path))
    kernel_cache.prepare(datadir)
    copied = datadir / "kernels" / "hash"
    assert sorted(path.name for path in copied.iterdir()) == ["f-1.py311.1.nbc", "f-1.py311.nbi"]
    for name, age_s in (("f-1.py311.nbi", -60), ("f-1.py311.1.nbc", 60)):
        (copied / name).write_text("own")
        changed_s = (image / "hash" / name).stat().st_mtime + age_s
        os.utime(copied / name, (changed_s, changed_s))
    monkeypatch.setenv(kernel_cache.VARIABLE, str(image))
    kernel_cache.prepare(datadir)
    assert [(copied / name).read_text() for name in ("f-1.py311.nbi", "f-1.py311.1.nbc")] == ["image", "own"]


def test_compiled_kernels_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder without kernels means that a start compiles them."""
    monkeypatch.setenv(kernel_cache.VARIABLE, str(tmp_path))
    assert not kernel_cache.compiled()
    (tmp_path / "hash").mkdir()
    (tmp_path / "hash" / "f-1.py311.nbi").write_text("kernel")
    assert kernel_cache.compiled()
