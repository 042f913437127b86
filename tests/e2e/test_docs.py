"""The pages for users: their files and commands run unchanged, from a platform's own topic to scores and an alert."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from streams.settings.settings import PREFIX, Settings
from tests.support import tidy

PAGES = ("sources.md", "clients.md", "faq.md", "comparison.md", "index.md")
LIMIT_S = 400.0
OWN_LINES = 15


def page(name: str) -> str:
    """The text of a page."""
    return (tidy.ROOT / "docs" / name).read_text(encoding="utf-8")


def files(name: str) -> dict[str, str]:
    """The blocks of a page that are files of the reader."""
    return dict(re.findall(r"^<!-- file: (\S+) -->\n```\w+\n(.*?)^```", page(name), re.DOTALL | re.MULTILINE))


def environment(settings: Settings) -> dict[str, str]:
    """The environment of a reader whose Kafka is that of the settings; the programs are those of this installation."""
    own = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    own["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), own["PATH"]])
    return {**own, f"{PREFIX}BROKER": settings.broker, f"{PREFIX}PREFIX": settings.prefix}


def first_line(folder: Path, settings: Settings, name: str) -> str:
    """Run a program of the page for clients until its first line; the topics of a test have a prefix."""
    code = files("clients.md")[name].replace("(broker, ", f"(broker, prefix={settings.prefix!r}, ")
    (folder / name).write_text(code, encoding="utf-8")
    command = [sys.executable, name]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=folder, env=environment(settings)) as process:
        assert process.stdout is not None
        try:
            return process.stdout.readline().strip()
        finally:
            process.kill()


def test_a_topic_becomes_scores_and_an_alert(settings: Settings, tmp_path: Path) -> None:
    """The commands of the page for sources end with a score and the alert of the rising user; the clients read both."""
    written = files("sources.md")
    assert {name: len(text.splitlines()) <= OWN_LINES for name, text in written.items() if name == "app.toml"} == {
        "app.toml": True
    }
    for name, text in written.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    code = "\n".join(re.findall(r"^```sh\n(.*?)^```", page("sources.md"), re.DOTALL | re.MULTILINE))
    printed, errors = tmp_path / "printed", tmp_path / "errors"
    with printed.open("wb") as out, errors.open("wb") as err:
        shell = subprocess.Popen(
            ["bash", "-euc", code],
            stdout=out,
            stderr=err,
            cwd=tmp_path,
            env=environment(settings),
            start_new_session=True,
        )
    try:
        assert shell.wait(LIMIT_S) == 0, errors.read_text(encoding="utf-8")
    finally:
        with suppress(ProcessLookupError):
            os.killpg(shell.pid, signal.SIGKILL)
        shell.wait()
    lines = printed.read_text(encoding="utf-8").splitlines()
    assert [line for line in lines if "1,153 records by app.toml: 0 make no event" in line] != []
    score, alert = json.loads(lines[-2]), json.loads(lines[-1])
    assert score["reach"] >= 0
    assert alert["kind"] == "emerging"
    assert re.fullmatch(
        r"\S+: \d+ new sharers of p\d+, as of 2026-03-0\d \d\d:00", first_line(tmp_path, settings, "notify.py")
    )
    assert re.fullmatch(r"\d+ [\d.]+ [\d.]+", first_line(tmp_path, settings, "keep.py"))


def test_both_mappings_of_the_page_make_the_same_events(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The TOML file and the Python function count the same events of the sample."""
    from streams import cli

    written = files("sources.md")
    for name, text in written.items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    records = subprocess.run([sys.executable, "sample.py"], capture_output=True, cwd=tmp_path, check=True).stdout
    (tmp_path / "records.jsonl").write_bytes(records)
    counts = []
    for name in ("app.toml", "app.py"):
        arguments = ["produce", "--check", str(tmp_path / "records.jsonl"), "--map", str(tmp_path / name), "--json"]
        assert cli.run(arguments) == 0
        counted = json.loads(capsys.readouterr().out)
        assert counted.pop("mapped")["map"] == name
        counts.append(counted)
    assert counts[0] == counts[1]
    assert counts[0]["events"] == len(records.splitlines())


@pytest.mark.parametrize("name", PAGES)
def test_links_lead_somewhere(name: str) -> None:
    """Every linked file exists, and every linked section of it."""
    for target, section in re.findall(r"\]\((?!https?:)([^)#]*)(?:#([^)]+))?\)", page(name)):
        path = tidy.ROOT / "docs" / target if target else tidy.ROOT / "docs" / name
        assert path.exists(), target
        if section:
            headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}
            assert section in slugs, f"{target}#{section}"
