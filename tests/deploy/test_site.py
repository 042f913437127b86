"""The documentation site: every page has its place in the navigation, and the tools are pinned with hashes."""

from __future__ import annotations

import re

import yaml

from tests.support import tidy

SITE = tidy.ROOT / "deploy" / "site"
DOCS = tidy.ROOT / "docs"


def test_every_page_has_its_place() -> None:
    """The navigation names every page once; decisions are reached from pages and by search."""
    navigation = yaml.safe_load((SITE / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]
    named = re.findall(r"[\w/-]+\.md", str(navigation))
    assert sorted(name for name in named if "/" not in name) == sorted(page.name for page in DOCS.glob("*.md"))
    assert all((DOCS / name).is_file() for name in named)


def test_the_tools_are_pinned() -> None:
    """The lock has what is wanted, with hashes and without a host."""
    wanted = tidy.requirements((SITE / "requirements.in").read_text(encoding="utf-8"))
    assert list(tidy.unlocked((SITE / "requirements.lock").read_text(encoding="utf-8"), wanted)) == []
