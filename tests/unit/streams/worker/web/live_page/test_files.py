"""The files of the live page: libraries as they came, nothing from elsewhere, short modules."""

from __future__ import annotations

import re
from pathlib import Path
from shutil import copytree

from graphstate.types import OWN, RELATIONS
from model.explain.attribution import GROUPS
from streams.messages.events import REASONS
from streams.worker.web.live_page.files import FOLDER, POLICY, files, wrong_sums

MODULE_LINES = 500


def test_libraries_are_those_of_their_checksums(tmp_path: Path) -> None:
    """Every library and its licence equals its checksum; a changed and an added file are named."""
    assert wrong_sums() == []
    copytree(FOLDER / "lib", tmp_path / "lib")
    (tmp_path / "lib" / "uPlot.min.css").write_text("", encoding="utf-8")
    (tmp_path / "lib" / "more.js").write_text("", encoding="utf-8")
    assert wrong_sums(tmp_path) == ["more.js", "uPlot.min.css"]


def test_the_page_loads_its_own_files_only() -> None:
    """Every script and style that it names is served; no file names an address to load from, and none is inline."""
    html = (FOLDER / "index.html").read_text(encoding="utf-8")
    named = re.findall(r'(?:src|href)="static/([^"]+)"', html)
    assert len(named) > 6
    assert [name for name in named if name not in files()] == []
    assert re.findall(r"<script>|<style>|\sstyle=|\son\w+=", html) == []
    for name, file in files().items():
        if not name.startswith("lib/"):
            assert re.findall(rb"https?://(?!www\.w3\.org/2000/svg)", file.body) == [], name
            assert len(file.body.splitlines()) <= MODULE_LINES, name
    assert "unsafe" not in POLICY


def test_every_name_has_words() -> None:
    """Features, groups of parts, relations and reasons of dead letters are words on the page, not names."""
    why = (FOLDER / "js" / "why.js").read_text(encoding="utf-8")
    flow = (FOLDER / "js" / "flow.js").read_text(encoding="utf-8")
    names = [*OWN, *(relation.name for relation in RELATIONS), *GROUPS, "neighbours"]
    assert [name for name in names if not re.search(rf"^  {name}: ", why, re.MULTILINE)] == []
    assert [reason for reason in REASONS if not re.search(rf"^  {reason}: ", flow, re.MULTILINE)] == []
