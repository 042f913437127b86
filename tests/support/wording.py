"""Plain words: the rule that a program can check about the language of code, messages and documents.

    python -m tests.support.wording [PATH ...]      prints every place with a refused word, with its line

Comments, docstrings and messages (string constants with a space) of Python files are checked, and the text of Markdown
files outside code blocks. Code publishes, sends, stores, queues, retries and waits for; it is no person.
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
    """The refused words of a text; what stands in backquotes is a name and not a word."""
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


def odd_words(path: Path, *, messages: bool = True) -> list[tuple[int, str, str]]:
    """(line, word, text) of every refused word in a file."""
    text = path.read_text(encoding="utf-8")
    texts = python_texts(text, messages=messages) if path.suffix == ".py" else markdown_texts(text)
    return sorted((line, word, piece.strip()) for line, piece in texts for word in refused(piece))


def main(arguments: list[str]) -> int:
    """Print what is refused under the given paths; 1 if there is any."""
    total: Counter[str] = Counter()
    for root in map(Path, arguments or ["."]):
        files = [root] if root.is_file() else sorted((*root.rglob("*.py"), *root.rglob("*.md")))
        for path in files:
            if path.name != "wording.py" and ".venv" not in path.parts:
                for line, word, text in odd_words(path, messages="tests" not in path.parts):
                    print(f"{path}:{line}: {word}: {text[:140]}")  # noqa: T201 - a command prints
                    total[str(path)] += 1
    print(f"{sum(total.values())} refused words in {len(total)} files")  # noqa: T201
    return int(bool(total))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
