"""Run the steps of the image in a clean root folder, without Docker: `make image-root`.

python -m tests.deploy.image_root [--folder build/image-root] [--extras analyst]

debootstrap makes two minimal Debian systems with Python 3.11, one to build in and one to run in, as the Dockerfile has
two stages. Only files that .dockerignore lets through are copied in. `install.sh` runs in the first by chroot; /app is
then copied to the second, and tests/deploy/sandbox.py runs a worker there, read-only and as user 10001. Needs root and
debootstrap.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

from tests.deploy import sandbox
from tests.support import tidy

SUITE = "bookworm"
BUILD = ("python3", "python3-venv", "python3-pip", "ca-certificates")
RUN = ("python3-minimal", "libpython3-stdlib", "libgomp1", "ca-certificates")
PASSED_ON = re.compile(r"^(PIP_|UV_|SSL_CERT_|REQUESTS_CA_|HTTPS?_PROXY|NO_PROXY|https?_proxy|no_proxy)")
"""Variables and files of this machine that pip and uv need to reach their index; none of them stays in /app."""
INSIDE = """
root=$1; shift
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
cd /
exec chroot "$root" sh -c 'cd /src && exec "$@"' sh "$@"
"""
FILES = ("/etc/resolv.conf", "/etc/hosts", "/etc/pip.conf")


def copied_files(ignored: str) -> list[str]:
    """The entries of the build context that .dockerignore lets through."""
    return [line[1:].strip("/") for line in ignored.splitlines() if line.startswith("!")]


def debian(folder: Path, packages: tuple[str, ...]) -> float:
    """Make a minimal system; returns the seconds."""
    begin = time.monotonic()
    if not (folder / "usr").is_dir():
        folder.mkdir(parents=True, exist_ok=True)
        command = ["debootstrap", "--variant=minbase", f"--include={','.join(packages)}", SUITE, str(folder)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        for path in ("var/cache/apt/archives", "var/lib/apt/lists"):
            shutil.rmtree(folder / path, ignore_errors=True)
    return time.monotonic() - begin


def copy_context(root: Path) -> None:
    """Copy the build context to /src, and what reaches the index to its place."""
    shutil.rmtree(root / "src", ignore_errors=True)
    for name in copied_files((tidy.ROOT / ".dockerignore").read_text(encoding="utf-8")):
        source, target = tidy.ROOT / name, root / "src" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if source.is_dir():
            shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__", "*.nb?", "*.pyc"))
        else:
            shutil.copy2(source, target)
    certificates = [value for name, value in os.environ.items() if name in {"SSL_CERT_FILE", "PIP_CERT"}]
    for name in [*FILES, *certificates]:
        if Path(name).is_file():
            (root / name[1:]).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(name, root / name[1:])


def run_step(root: Path, *arguments: str) -> float:
    """Run a step of install.sh in the root folder; returns the seconds."""
    begin = time.monotonic()
    kept = [f"{name}={value}" for name, value in os.environ.items() if PASSED_ON.match(name)]
    words = ["env", "-i", "PATH=/usr/bin:/bin", "HOME=/root", *kept, "sh", "deploy/image/install.sh", *arguments]
    command = ["unshare", "--mount", "--propagation", "private", "sh", "-c", INSIDE, "sh", str(root), *words]
    subprocess.run(command, check=True)
    return time.monotonic() - begin


def size_mb(folder: Path) -> float:
    """Megabytes of the files of a folder."""
    files = [path for path in folder.rglob("*") if path.is_file() and not path.is_symlink()]
    return sum(path.stat().st_size for path in files) / 1e6


def main() -> int:
    """Build the root folder and run a worker in it; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--folder", type=Path, default=tidy.ROOT / "build" / "image-root")
    parser.add_argument("--extras", default="analyst")
    arguments = parser.parse_args()
    build, final = arguments.folder.absolute() / "build", arguments.folder.absolute() / "run"
    sys.stdout.write(f"debian: {debian(build, BUILD) + debian(final, RUN):.0f} s\n")
    copy_context(build)
    for step in (("libraries", arguments.extras, ""), ("package",), ("kernels",)):
        if step[0] == "libraries":
            shutil.rmtree(build / "app", ignore_errors=True)
        sys.stdout.write(f"install.sh {' '.join(step).strip()}: {run_step(build, *step):.0f} s\n")
        sys.stdout.flush()
    system_mb = size_mb(final / "usr") + size_mb(final / "var") + size_mb(final / "etc")
    for name in ("app", "data"):
        shutil.rmtree(final / name, ignore_errors=True)
    (final / "data").mkdir()
    shutil.copytree(build / "app", final / "app", symlinks=True)
    kernels_mb, app_mb = size_mb(final / "app" / "kernels"), size_mb(final / "app")
    sys.stdout.write(
        f"root folder: {system_mb + app_mb:.0f} MB: system with Python {system_mb:.0f}, /app {app_mb:.0f}, "
        f"of these kernels {kernels_mb:.0f}\n"
    )
    sys.stdout.flush()
    return sandbox.main(final)


if __name__ == "__main__":
    raise SystemExit(main())
