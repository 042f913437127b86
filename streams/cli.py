"""The root of `groundswell`: one table of commands, each imported only when it is used.

A command's module lies in streams/commands and exports a function with the command's name, or a
Typer app named `app` where the command has commands of its own. Errors that we raise on purpose
become one line on standard error and exit code 1, wrong usage one line and exit code 2.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import version as package_version
from io import TextIOWrapper
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup

from streams.errors import on_purpose, one_line, reason
from streams.messages.escaping import safe, safe_lines
from streams.settings import kernel_cache
from streams.worker import process_memory

NAME = "groundswell"
FOLDER = Path(__file__).parent / "commands"


class Entry(NamedTuple):
    """Where a command comes from, and its line in the list."""

    module: str
    attribute: str
    help: str


COMMANDS = {
    "demo": Entry("demo", "demo", "Everything on this machine: Kafka, a worker and a live stream."),
    "worker": Entry("worker", "worker", "Run one worker against the configured Kafka."),
    "topics": Entry("topics", "app", "Create, list and describe the topics."),
    "produce": Entry("produce", "produce", "Validate the events of a file and send them."),
    "tail": Entry("tail", "app", "Follow the scores or the alerts."),
    "replay": Entry("replay", "replay", "Score event files without a broker."),
    "simulate": Entry("simulate", "simulate", "Generate a social stream with known true influence."),
    "train": Entry("train", "train", "Train an artifact from event files."),
    "evaluate": Entry("evaluate", "evaluate", "Compare an artifact with the baselines."),
    "model": Entry("model", "app", "Show the artifact in use."),
    "state": Entry("state", "app", "Look at the state, check it, keep checkpoints and bring them back."),
    "dlq": Entry("dlq", "app", "List, show, send again and delete the dead letters."),
    "config": Entry("config", "config", "Show the settings, where each comes from and what it does."),
    "doctor": Entry("doctor", "doctor", "Try broker, topics, disk, device and model, and say what to mend."),
}


WITHOUT_KERNELS = {"config", "doctor", "topics", "tail", "worker"}
"""Commands that compile nothing, or choose the folder for it by themselves, as they have a data folder."""
OPTIONAL = {"--skip-bad": "-1"}
"""Options that may stand without a value, and what they stand for then."""


class LazyCommand(TyperCommand):
    """Stands in the list for a command whose module is imported when the command is called."""

    def __init__(self, name: str, entry: Entry) -> None:
        super().__init__(name=name, help=entry.help)
        self._entry = entry

    def load(self) -> Any:
        """The command itself."""
        entry = self._entry
        if entry.module not in WITHOUT_KERNELS:
            kernel_cache.prepare()
        found = getattr(import_module(f"streams.commands.{entry.module}"), entry.attribute)
        if not isinstance(found, typer.Typer):
            found = _alone(found)
        command = typer.main.get_command(found)
        command.name = self.name
        return command

    def make_context(self, info_name: str | None, args: list[str], *arguments: Any, **named: Any) -> Any:
        """Where the root begins to call a command: from here on the command itself takes over."""
        return self.load().make_context(info_name, _with_values(args), *arguments, **named)


class Root(TyperGroup):
    """The group of all commands whose module is there."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = {name: LazyCommand(name, entry) for name, entry in available().items()}


def _with_values(arguments: list[str]) -> list[str]:
    """The arguments with a value behind an option that may stand without one: click would take what comes next."""
    found = list(arguments)
    end = found.index("--") if "--" in found else len(found)
    for at in range(end):
        if found[at] in OPTIONAL and not (at + 1 < end and found[at + 1].isdecimal()):
            found[at] = f"{found[at]}={OPTIONAL[found[at]]}"
    return found


def available() -> dict[str, Entry]:
    """The commands whose module is there, in the order of the table."""
    return {name: entry for name, entry in COMMANDS.items() if (FOLDER / f"{entry.module}.py").is_file()}


def _alone(function: Any) -> typer.Typer:
    """An app of one command."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command()(function)
    return app


app = typer.Typer(
    cls=Root,
    name=NAME,
    no_args_is_help=True,
    # Tracebacks stay plain: they end up in logs.
    pretty_exceptions_enable=False,
    # Help is plain text: it is read in pipes and pages too.
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"{NAME} {package_version(NAME)}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Groundswell scores social influence while it happens: Kafka events in, scores and alerts out."""


def run(arguments: Sequence[str]) -> int:
    """Run one command; its exit code: 0 fine, 1 failed, 2 wrong usage."""
    try:
        code = typer.main.get_command(app).main(list(arguments), prog_name=NAME, standalone_mode=False)
    except typer.exceptions.TyperException as error:
        # Usage. The help that a group prints when it is called without a command has several lines.
        text = error.format_message()
        typer.echo(safe_lines(text if "\n" in text else f"{NAME}: {text.rstrip('.')}; try --help"), err=True)
        return error.exit_code
    except typer.Abort:
        return 1
    except BrokenPipeError:
        return 1
    except OSError as error:
        typer.echo(f"{NAME}: {_refused(error)}", err=True)
        return 1
    except Exception as error:
        if not on_purpose(error):
            raise
        typer.echo(f"{NAME}: {safe(one_line(error))}", err=True)
        return 1
    return code if isinstance(code, int) else 0


def _refused(error: OSError) -> str:
    """What the system refused, and of which file."""
    names = ", ".join(str(name) for name in (error.filename, error.filename2) if name is not None)
    return f"{names}: {reason(error)}" if names else reason(error)


def _show_anything() -> None:
    """Escape what the encoding of a terminal or file cannot express, instead of failing on it."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def main() -> None:
    """The `groundswell` script."""
    _show_anything()
    process_memory.one_arena()
    process_memory.collect_rarely()
    code = run(sys.argv[1:])
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        # Do not let the interpreter's own flush complain as well. A reader of a pipe may leave.
        sys.stdout = None
        if not isinstance(error, BrokenPipeError):
            typer.echo(f"{NAME}: standard output: {reason(error)}", err=True)
            code = code or 1
    sys.exit(code)


if __name__ == "__main__":
    main()
