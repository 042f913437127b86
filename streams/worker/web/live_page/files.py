"""The files of the live page: one HTML page, its style and scripts, and two libraries under their checksums.

All are read once. Nothing is loaded from elsewhere, and the policy allows neither inline scripts nor inline styles.
"""

from __future__ import annotations

import hashlib
from functools import cache
from pathlib import Path
from typing import NamedTuple

from aiohttp import web

FOLDER = Path(__file__).parents[1] / "static"
TYPES = {".js": "text/javascript", ".css": "text/css", ".txt": "text/plain"}
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
SUMS = "lib/SHA256SUMS"
"""Checksums of the libraries, in the form of `sha256sum`."""


class StaticFile(NamedTuple):
    """A file as it is sent.

    Attributes:
        body: Its bytes.
        content_type: Its media type.
        etag: The first half of its SHA-256.
    """

    body: bytes
    content_type: str
    etag: str


@cache
def files(folder: Path = FOLDER) -> dict[str, StaticFile]:
    """Return the files under a folder that pages may load, by their path in it."""
    found = {}
    for path in sorted(folder.rglob("*")):
        if path.suffix in TYPES and path.is_file():
            body = path.read_bytes()
            name = path.relative_to(folder).as_posix()
            found[name] = StaticFile(body, TYPES[path.suffix], hashlib.sha256(body).hexdigest()[:32])
    return found


def wrong_sums(folder: Path = FOLDER) -> list[str]:
    """Return the libraries that differ from their checksum, and the files beside them that have none."""
    lines = (folder / SUMS).read_text(encoding="ascii").splitlines()
    wanted = {name: digest for digest, name in (line.split(maxsplit=1) for line in lines)}
    library = (folder / SUMS).parent
    found = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in library.iterdir()
        if path.name != Path(SUMS).name
    }
    return sorted(name for name in wanted.keys() | found.keys() if wanted.get(name) != found.get(name))


async def send(request: web.Request) -> web.Response:
    """Return a style or a script of the live page."""
    file = files().get(request.match_info["path"])
    if file is None:
        return web.json_response({"error": "no such file"}, status=404)
    headers = {"ETag": f'"{file.etag}"', "Cache-Control": "no-cache"}
    if file.etag in request.headers.get("If-None-Match", ""):
        return web.Response(status=304, headers=headers)
    return web.Response(body=file.body, content_type=file.content_type, charset="utf-8", headers=headers)
