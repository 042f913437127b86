"""Each rule of the layout finds the bad sample and accepts the good one."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from tests.support import layout_rules, tidy

Rule = Callable[[Path], Iterator[str]]
Files = Mapping[str, str]


def tree(root: Path, files: Files) -> Path:
    """Write these files under a root, and return it."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return root


def modules(folder: str, count: int) -> dict[str, str]:
    """Make a number of empty modules in a folder."""
    return {f"{folder}/m{number}.py": "" for number in range(count)}


def methods(count: int, *, name: str = "m", before: str = "") -> str:
    """Make a class with a number of methods."""
    return f"{before}class A:\n" + "".join(f"    def {name}{number}(self): ...\n" for number in range(count))


LONG = "class A:\n" + "    x = 1\n" * layout_rules.CLASS_LINES
FULL = modules("streams/kafka", layout_rules.ENTRIES)


@pytest.mark.parametrize(
    ("rule", "bad", "good"),
    [
        (layout_rules.crowded_folders, {**FULL, "streams/kafka/more.py": ""}, FULL),
        (layout_rules.crowded_folders, {**FULL, "streams/kafka/room/m.py": ""}, {**FULL, "streams/room/m.py": ""}),
        (layout_rules.crowded_folders, modules("model", 14), {**FULL, "streams/kafka/__init__.py": ""}),
        (layout_rules.crowded_folders, modules("streams/commands/deep", 14), modules("streams/commands", 14)),
        (
            layout_rules.unmirrored_tests,
            {"tests/unit/streams/test_topics.py": "", "streams/kafka/topics.py": ""},
            {"tests/unit/streams/kafka/test_topics.py": "", "streams/kafka/topics.py": ""},
        ),
        (layout_rules.unmirrored_tests, {"tests/unit/model/helper.py": ""}, {"tests/unit/model/conftest.py": ""}),
        (layout_rules.missing_modules, {"docs/a.md": "see `model/gone.py`"}, {"docs/a.md": "see model/a.py, model"}),
        (layout_rules.missing_modules, {"README.md": "see gone.py."}, {"README.md": "see a.py."}),
        (layout_rules.missing_modules, {"docs/a.md": "model/b/a.py"}, {"README.md": "```sh\npython my.py\n```\n"}),
    ],
)
def test_each_rule_finds_the_bad_sample(rule: Rule, bad: Files, good: Files, tmp_path: Path) -> None:
    """Each rule finds its bad sample and accepts the good one."""
    assert list(rule(tree(tmp_path / "bad", {"model/a.py": "", **bad}))) != []
    assert list(rule(tree(tmp_path / "good", {"model/a.py": "", **good}))) == []


@pytest.mark.parametrize(
    ("bad", "good"),
    [
        (methods(21), methods(20)),
        (methods(21), methods(30, name="_m")),
        (LONG + "    y = 1\n", LONG[:-10]),
        (methods(21, before="# large class:\n"), methods(21, before="# large class: one per relation\n")),
        (methods(21), methods(21).replace("class A:", "class A:  # large class: one per relation")),
        (methods(21, before="@f\n"), methods(21, before="# large class: one per relation\n@f\n")),
    ],
)
def test_large_classes_need_a_reason(bad: str, good: str, tmp_path: Path) -> None:
    """More than 20 public methods or 250 lines are an error without a comment with the reason."""
    assert list(layout_rules.large_classes_of(tree(tmp_path / "bad", {"model/a.py": bad}))) != []
    assert list(layout_rules.large_classes_of(tree(tmp_path / "good", {"model/a.py": good}))) == []


ROWS = "".join(f"| {word} | a meaning |\n" for word in layout_rules.DESIGN_WORDS)


@pytest.mark.parametrize(
    "bad",
    [
        ROWS.replace("| halo |", "| hello |"),
        ROWS + "| Halo | another meaning |\n",
        ROWS + "| pack, halo | another meaning |\n",
        ROWS + "| pack | |\n",
    ],
)
def test_a_bad_glossary_is_found(bad: str) -> None:
    """A missing word, a word with two lines, and a line without a meaning are errors."""
    assert list(layout_rules.bad_glossary(ROWS + "| pack | a message |\n")) == []
    assert list(layout_rules.bad_glossary(bad)) != []


def test_the_glossary_has_every_word_of_the_design_once() -> None:
    """Every word of the design has its line, and no term has two."""
    text = (tidy.ROOT / "docs" / "glossary.md").read_text(encoding="utf-8")
    assert list(layout_rules.bad_glossary(text)) == []
    assert len(layout_rules.glossary_terms(text)) > 100
