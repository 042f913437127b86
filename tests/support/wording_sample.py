"""A random sample of docstrings and messages, to be read as plain English: what a program cannot check.

    python -m tests.support.wording_sample [--seed N] [--count N] [PATH ...]

A message is the text of an error that is raised, the help of an option or a setting, or any other string constant of at
least five words outside docstrings; placeholders stand as `…`.
"""

from __future__ import annotations

import argparse
import ast
import random
import sys
from collections.abc import Iterator
from pathlib import Path

WORDS = 5


def docstrings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, first paragraph) of every docstring of a module."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            text = ast.get_docstring(node)
            if text:
                yield getattr(node, "lineno", 1), " ".join(text.split("\n\n")[0].split())


def messages(tree: ast.Module) -> Iterator[tuple[int, str]]:
    """(line, text) of every message of a module."""
    bare = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    parts = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            text = "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in bare | parts:
            text = node.value
        else:
            continue
        if len(text.split()) >= WORDS:
            yield node.lineno, " ".join(text.split())


def main(arguments: list[str]) -> int:
    """Print the sample."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("paths", nargs="*", type=Path, default=[Path("streams"), Path("graphstate"), Path("model")])
    parser.add_argument("--seed", type=int, default=17)
    parser.add_argument("--count", type=int, default=20)
    options = parser.parse_args(arguments)
    files = sorted(file for path in options.paths for file in ([path] if path.is_file() else path.rglob("*.py")))
    trees = {file: ast.parse(file.read_text(encoding="utf-8")) for file in files}
    rng = random.Random(options.seed)
    for title, extract in (("docstrings", docstrings), ("messages", messages)):
        found = [(file, line, text) for file, tree in trees.items() for line, text in extract(tree)]
        print(f"{options.count} of {len(found)} {title}:")  # noqa: T201 - a command prints
        for file, line, text in rng.sample(found, options.count):
            print(f"  {file}:{line}: {text}")  # noqa: T201
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
