"""The layout of the whole tree; each rule has a sample that must fail in `tests/test_layout_rules.py`."""

from __future__ import annotations

from tests.support import layout_rules
from tests.support.tidy import ROOT


def test_no_folder_is_crowded() -> None:
    """A folder has at most 13 entries, the commands apart."""
    assert list(layout_rules.crowded_folders(ROOT)) == []


def test_unit_tests_mirror_the_code() -> None:
    """The path of each unit test names the module that it tests."""
    assert list(layout_rules.unmirrored_tests(ROOT)) == []


def test_documents_name_modules_that_exist() -> None:
    """Every Python file named in README.md, the pages beside it and docs/*.md exists."""
    assert list(layout_rules.missing_modules(ROOT)) == []


def test_classes_are_small() -> None:
    """A class has at most 20 public methods and 250 lines, or a reason in its file."""
    assert list(layout_rules.large_classes_of(ROOT)) == []
