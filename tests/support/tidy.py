"""Style rules; each takes a text and yields its violations.

`tests/test_tidy.py` checks them on the whole tree, and on samples that must fail.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PACKAGES = ("groundswell", "streams", "graphstate", "model")
FOLDERS = (*PACKAGES, "tests", "deploy", "docs", ".ci")
PAGES = ("README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md")
ROOT_FILES = (*PAGES, "Makefile", "pyproject.toml", "requirements.in", "requirements.lock", ".gitignore")
TEXT = {".py", ".md", ".toml", ".yaml", ".yml", ".json", ".html", ".css", ".js", ".lock", ".in", ".txt", ".cfg", ""}

MODULE_LINES = 500
FUNCTION_LINES = 70
PAGE_LINES = 90

# Character classes keep the patterns from matching themselves.
MACHINE_PATH = re.compile(r"(?<![\w.~}/])/(?:[r]oot|[h]ome|[U]sers|[w]ork|[m]nt)/[\w.-]")
REGISTRY = re.compile(
    r"https?://(?:[\w-]+\.)*(?:[p]ypi|[r]epo\d*|[r]egistry|[i]ndex|[f]iles|[m]aven|[c]rates|[p]roxy)\b[\w.-]*\.\w+"
    r"|https?://\S+/(?:[s]imple|[m]aven2|[r]epository)\b",
)
INDEX_OPTION = re.compile(r"--(?:extra-)?[i]ndex-url|--[f]ind-links|--[t]rusted-host|^\s*-[if]\s+\S+://", re.MULTILINE)
ENVIRONMENT = {"environ", "environb", "getenv", "putenv"}

DECISION_NAME = re.compile(r"\d{4}-[a-z0-9]+(?:-[a-z0-9]+)*\.md")
DECISION_SECTIONS = ("## Context", "## Options", "## Decision")


def python_files(*folders: str) -> list[Path]:
    """Every Python file under the given folders of the tree."""
    return sorted(path for folder in folders for path in (ROOT / folder).rglob("*.py"))


def text_files() -> list[Path]:
    """Every text file of the project."""
    found = [path for folder in FOLDERS for path in (ROOT / folder).rglob("*") if path.suffix in TEXT]
    found += [ROOT / name for name in ROOT_FILES]
    return sorted(path for path in found if path.is_file() and "__pycache__" not in path.parts)


def too_long(source: str) -> Iterator[str]:
    """Modules and functions above the limits."""
    lines = len(source.splitlines())
    if lines > MODULE_LINES:
        yield f"module has {lines} lines, at most {MODULE_LINES}"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > FUNCTION_LINES:
                yield f"{node.name} has {length} lines, at most {FUNCTION_LINES}"


def undocumented(source: str, *, is_test: bool) -> Iterator[str]:
    """Modules without a docstring, and tests without a docstring that is a sentence."""
    tree = ast.parse(source)
    if source.strip() and not ast.get_docstring(tree):
        yield "module has no docstring"
    if not is_test:
        return
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_"):
            first = (ast.get_docstring(node) or "").split("\n\n")[0]
            if not first.endswith((".", "!", "?", ")")):
                yield f"{node.name} has no docstring that is a sentence"


def reads_environment(source: str) -> Iterator[str]:
    """Reads of the environment, which only settings may do."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Attribute) and node.attr in ENVIRONMENT and getattr(node.value, "id", "") == "os":
            yield f"line {node.lineno} reads the environment: make it a setting"
        if isinstance(node, ast.ImportFrom) and node.module == "os":
            yield from (f"line {node.lineno} imports {a.name}" for a in node.names if a.name in ENVIRONMENT)


def names_a_place(text: str) -> Iterator[str]:
    """Paths of a particular machine and addresses of package registries."""
    for pattern, what in ((MACHINE_PATH, "a path of one machine"), (REGISTRY, "a registry's address")):
        yield from (f"{what}: {match.group()}" for match in pattern.finditer(text))
    yield from (f"an option that names a registry: {match.group()}" for match in INDEX_OPTION.finditer(text))


def requirement_name(line: str) -> str:
    """The normal form of the name that a requirement begins with."""
    match = re.match(r"[A-Za-z0-9._-]+", line)
    return re.sub(r"[-_.]+", "-", match.group()).lower() if match else ""


def unlocked(lock: str, wanted: list[str]) -> Iterator[str]:
    """Requirements without a pin, pins without hashes, and host names in a lock."""
    if "://" in lock:
        yield "the lock names a host"
    entries = re.split(r"\n(?=\S)", lock)
    pinned = {requirement_name(entry) for entry in entries if "==" in entry}
    yield from (f"{line} is not in the lock" for line in wanted if requirement_name(line) not in pinned)
    for entry in entries:
        if re.match(r"[A-Za-z0-9]", entry) and "--hash=sha256:" not in entry:
            yield f"{entry.splitlines()[0]} has no hash"


def requirements(text: str) -> list[str]:
    """The requirements of a requirements.in."""
    return [line for line in (raw.split("#")[0].strip() for raw in text.splitlines()) if line]


def package_needs(pyproject: str) -> list[str]:
    """The dependencies of the package."""
    return [str(need) for need in tomllib.loads(pyproject)["project"]["dependencies"]]


def bad_decision(name: str, text: str) -> Iterator[str]:
    """Violations of the form of a decision record: title, sections, at most one page."""
    if not DECISION_NAME.fullmatch(name):
        yield f"{name} is not named NNNN-title.md"
        return
    lines = text.splitlines()
    if not lines or not re.fullmatch(r"# [A-Z].*", lines[0]):
        yield "the first line is not '# Title'"
    at = [lines.index(section) if section in lines else -1 for section in DECISION_SECTIONS]
    if -1 in at or at != sorted(at):
        yield f"the sections {', '.join(DECISION_SECTIONS)} are missing or in another order"
    if not re.search(r"\d", "\n".join(lines[1:])):
        yield "it contains no number"
    if len(lines) > PAGE_LINES:
        yield f"it has {len(lines)} lines, a page has {PAGE_LINES}"


def bad_numbering(names: list[str]) -> Iterator[str]:
    """Decisions must be numbered 1, 2, 3, ... without gaps."""
    numbers = sorted(int(name[:4]) for name in names if DECISION_NAME.fullmatch(name))
    if numbers != list(range(1, len(numbers) + 1)):
        yield f"the numbers are {numbers}"
