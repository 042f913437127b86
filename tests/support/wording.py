"""Plain words: the part of the language rule for code, messages and documents that a program can check.

    python -m tests.support.wording [PATH ...]      prints every refused word with its file, line and text

Checks comments, docstrings and messages (string constants with a space) of Python files, and the text of Markdown files
outside code blocks. In tests only comments and docstrings are checked. The rule: a component with a field verb and its
object (it publishes, sends, stores, queues, retries, waits for); components are not described as persons.
"""

from __future__ import annotations

import ast
import io
import re
import sys
import tokenize
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

REFUSED = re.compile(
    r"\b(?:(?i:who(?:m)?ever|nobody|somebody|someone|anybody|anyone|everybody|everyone|anew|so many|those who"
    r"|sa(?:y|ys|id|ying)|unsaid|t(?:ell|ells|old|elling)|hear(?:s|d|ing)?|know|knows|knew|knowing|owe(?:s|d)?|owing"
    r"|g(?:ive|ives|ave|iven|iving) up|speak(?:s|ing)?|spoke(?:n)?|hush(?:es|ed)?|believes?|whereabouts"
    r"|we|us|ours?)|I)\b|(?:^|[.:;(] +)Who\b",
    re.MULTILINE,
)
_CODE = re.compile(r"`[^`\n]*`")
_FENCE = re.compile(r"^(?:```|~~~).*?^(?:```|~~~)\s*$", re.MULTILINE | re.DOTALL)
_CAPITALS = re.compile(r"US|WE|KNOW")


def refused(text: str) -> list[str]:
    """The refused words of a text; names in backquotes are skipped."""
    return [
        match.group().strip(" .:;(")
        for match in REFUSED.finditer(_CODE.sub("``", text))
        if not _CAPITALS.fullmatch(match.group())
    ]


def python_texts(source: str, *, messages: bool = True) -> Iterator[tuple[int, str]]:
    """(line, text) of every comment, docstring and message of a Python file."""
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], re.sub(r"#\s*(?:noqa|type: ignore).*?(?= - |$)", "", token.string)
    tree = ast.parse(source)
    docstrings = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    bare = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            if id(node) in docstrings | bare:
                for shift, line in enumerate(node.value.splitlines()):
                    yield node.lineno + shift, line
            elif messages and " " in node.value.strip():
                yield node.lineno, node.value


def markdown_texts(text: str) -> Iterator[tuple[int, str]]:
    """(line, text) of a Markdown file, without its code blocks."""
    blanked = _FENCE.sub(lambda match: "\n" * match.group().count("\n"), text)
    yield from enumerate(blanked.splitlines(), 1)


def refused_words(text: str, *, suffix: str = ".py", messages: bool = True) -> list[tuple[int, str, str]]:
    """(line, word, text of the line) of every refused word in the text of a file with this suffix."""
    texts = python_texts(text, messages=messages) if suffix == ".py" else markdown_texts(text)
    return sorted((line, word, piece.strip()) for line, piece in texts for word in refused(piece))


def refused_under(root: Path) -> Iterator[tuple[Path, int, str, str]]:
    """(file, line, word, text of the line) of every refused word in a file or under a folder."""
    files = [root] if root.is_file() else sorted((*root.rglob("*.py"), *root.rglob("*.md")))
    for path in files:
        if path.name != "wording.py" and ".venv" not in path.parts:
            text, is_test = path.read_text(encoding="utf-8"), "tests" in path.parts
            for line, word, piece in refused_words(text, suffix=path.suffix, messages=not is_test):
                yield path, line, word, piece


def main(arguments: list[str]) -> int:
    """Print the refused words under the given paths; return 1 if there are any."""
    total: Counter[Path] = Counter()
    for root in map(Path, arguments or ["."]):
        for path, line, word, text in refused_under(root):
            print(f"{path}:{line}: {word}: {text[:140]}")  # noqa: T201 - a command prints
            total[path] += 1
    print(f"{sum(total.values())} refused words in {len(total)} files")  # noqa: T201
    return int(bool(total))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
