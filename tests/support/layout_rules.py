"""Layout rules; each takes the root of a tree and yields its violations.

`tests/test_layout_rules.py` checks them on small trees that must fail, `tests/test_layout.py` on this tree.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

PACKAGES = ("groundswell", "streams", "graphstate", "model")
CODE = (*PACKAGES, "deploy", "tests")
ENTRIES = 13
WIDE = {"streams", "streams/commands"}
"""Folders without a limit: one room per part of the system; one module per noun of the command line."""
UNCOUNTED = {"__init__.py", "__pycache__", "py.typed"}

PUBLIC_METHODS = 20
CLASS_LINES = 250
REASON = re.compile(r"#\s*large class: \S+ \S+")
"""A comment on the `class` line or right above it: `# large class: REASON`."""

UNIT = Path("tests") / "unit"
_MODULE = re.compile(r"(?<![\w./<{*-])((?:[\w-]+/)*[A-Za-z_]\w*\.py)\b")


def crowded_folders(root: Path, packages: tuple[str, ...] = PACKAGES) -> Iterator[str]:
    """Folders of the packages with more entries than the limit."""
    for package in packages:
        for folder in sorted(path for path in [root / package, *(root / package).rglob("*")] if path.is_dir()):
            if "__pycache__" in folder.parts or str(folder.relative_to(root)) in WIDE:
                continue
            entries = [path.name for path in folder.iterdir() if path.name not in UNCOUNTED]
            if len(entries) > ENTRIES:
                yield f"{folder.relative_to(root)} has {len(entries)} entries, at most {ENTRIES}"


def unmirrored_tests(root: Path) -> Iterator[str]:
    """Unit tests without the module that their path names: tests/unit/A/B/test_M.py tests A/B/M.py."""
    for path in sorted((root / UNIT).rglob("*.py")):
        place = path.relative_to(root / UNIT).parent
        if not path.name.startswith("test_"):
            if path.name not in {"__init__.py", "conftest.py"}:
                yield f"{path.relative_to(root)} is not a test: helpers belong to tests/support"
            continue
        module = place / path.name.removeprefix("test_")
        if not (root / module).is_file():
            yield f"{path.relative_to(root)} has no module {module}"


def missing_modules(root: Path) -> Iterator[str]:
    """Python files named in docs/*.md and README.md that do not exist.

    A name without a folder must be that of some module. Code blocks and comments are skipped: they may name
    the reader's files.
    """
    names = {path.name for folder in CODE for path in (root / folder).rglob("*.py")}
    for page in sorted([*(root / "docs").glob("*.md"), *root.glob("*.md")]):
        text = re.sub(
            r"^```(?:python|sh).*?^```|<!--.*?-->", "", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL
        )
        for name in sorted(set(_MODULE.findall(text))):
            there = (root / name).is_file() if "/" in name else name in names
            if not there:
                yield f"{page.relative_to(root)} names {name}, which does not exist"


def large_classes(source: str) -> Iterator[str]:
    """Classes above the limits of methods or lines without a reason in the file."""
    lines = source.splitlines()
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.ClassDef):
            continue
        methods = [one for one in node.body if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef)]
        public = len({one.name for one in methods if not one.name.startswith("_")})
        length = (node.end_lineno or node.lineno) - node.lineno + 1
        first = min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)])
        reason = any(map(REASON.search, lines[max(0, first - 2) : node.lineno]))
        if (public > PUBLIC_METHODS or length > CLASS_LINES) and not reason:
            yield (
                f"{node.name} has {public} public methods in {length} lines, at most {PUBLIC_METHODS} in {CLASS_LINES}"
            )


def large_classes_of(root: Path, packages: tuple[str, ...] = PACKAGES) -> Iterator[str]:
    """`large_classes` of every module of the packages."""
    for package in packages:
        for path in sorted((root / package).rglob("*.py")):
            yield from (f"{path.relative_to(root)}: {one}" for one in large_classes(path.read_text(encoding="utf-8")))


DESIGN_WORDS = (
    "user", "content", "community", "relation", "event", "mutation", "shard", "owner", "halo", "micro-batch", "window",
    "frontier", "as-of time", "tick", "propagated features", "own features", "reach", "percentile", "breakout",
    "watermark", "boundary", "outcome", "analyst",
)  # fmt: skip
"""The words fixed by the design; each has one line in docs/glossary.md."""


def glossary_terms(text: str) -> list[str]:
    """The terms of a glossary: the first cells of its tables, split at commas."""
    cells = re.findall(r"^\| ([^|]+?) \| [^|]+ \|$", text, re.MULTILINE)
    return [term.strip() for cell in cells if cell != "term" for term in cell.split(",")]


def bad_glossary(text: str) -> Iterator[str]:
    """Words of the design without a line, terms with two lines, and lines without a meaning."""
    terms = [term.casefold() for term in glossary_terms(text)]
    yield from (f"{word} has no line" for word in DESIGN_WORDS if word not in terms)
    yield from sorted({f"{term} has {terms.count(term)} lines" for term in terms if terms.count(term) > 1})
    yield from (f"a line has no meaning: {line}" for line in re.findall(r"^\| [^|]+ \|\s*\|$", text, re.MULTILINE))
