"""The list of files that a share passes, in docs/architecture.md: in the order of calls, and as long as stated."""

from __future__ import annotations

import re

from tests.support import tidy

PAGE = tidy.ROOT / "docs" / "architecture.md"
MOST = 34
WIRING = "streams/worker/worker.py"
"""Connects the agents to Faust, which calls them."""


def test_each_file_of_the_list_is_imported_by_one_above_it() -> None:
    """The list is numbered, counted in its sentence, and follows the imports, or those of the worker."""
    section = PAGE.read_text(encoding="utf-8").split("## A share, from the socket to the topic")[1].split("\n## ")[0]
    entries = re.findall(r"^(\d+)\. `([^`]+\.py)`", section, re.MULTILINE)
    assert [int(number) for number, _ in entries] == list(range(1, len(entries) + 1))
    files = [file for _, file in entries]
    assert len(set(files)) == len(files) <= MOST
    assert f"passes {len(files)} files" in section
    above = (tidy.ROOT / WIRING).read_text(encoding="utf-8")
    for place, file in enumerate(files):
        package, module = file.removesuffix(".py").replace("/", ".").rsplit(".", 1)
        imported = rf"^\s*(?:from {package}\.{module} import|from {package} import .*\b{module}\b)"
        assert not place or re.search(imported, above, re.MULTILINE), file
        above += (tidy.ROOT / file).read_text(encoding="utf-8")
