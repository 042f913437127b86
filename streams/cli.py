"""The root of `groundswell`: a table of commands; a command's module is imported when the command is called.

The module of a command is in streams/commands. It exports a function with the command's name, or a Typer app named
`app` if the command has subcommands. Errors that are raised on purpose become one line on standard error and exit code
1, wrong usage one line and exit code 2.
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

from streams.commands import _examples
from streams.errors import missing_library, on_purpose, one_line, reason
from streams.messages.escaping import safe, safe_lines
from streams.settings import kernel_cache
from streams.worker import process_memory

NAME = "groundswell"
FOLDER = Path(__file__).parent / "commands"


class Entry(NamedTuple):
    """A command: module, attribute, line in the list of commands, and the extra that brings its libraries."""

    module: str
    attribute: str
    help: str
    extra: str = ""


COMMANDS = {
    "demo": Entry("demo", "demo", "Run Kafka, a worker and a generated live stream on this machine."),
    "worker": Entry("worker", "worker", "Run one worker against the configured Kafka."),
    "analyst": Entry("analyst", "analyst", "Run the analyst: centralities, communities and seeds of the whole graph."),
    "topics": Entry("topics", "app", "Create, list and describe the topics."),
    "produce": Entry("produce", "produce", "Validate the events of a file and send them to Kafka."),
    "connect": Entry("connect", "connect", "Read another topic, a WebSocket or a pipe, and send its events.", "avro"),
    "export": Entry("export", "export", "Copy scores, alerts and outcomes into Avro topics of a registry.", "avro"),
    "tail": Entry("tail", "app", "Follow the scores or the alerts."),
    "replay": Entry("replay", "replay", "Score event files without a broker."),
    "simulate": Entry("simulate", "simulate", "Generate an event file with known true influence."),
    "train": Entry("train", "train", "Train an artifact from event files.", "train"),
    "train-next": Entry("train_next", "train_next", "Train a model of who shares a post next.", "train"),
    "evaluate": Entry("evaluate", "evaluate", "Compare an artifact with the baselines.", "train"),
    "top": Entry("top", "top", "Ask a worker for its first users by reach, growth, engagement or on a topic."),
    "compare": Entry("compare", "compare", "Ask a worker who of two users is more influential, and by what."),
    "query": Entry("query", "query", "Ask a worker in one line: PREDICT, RANK, COMPARE, EXPLAIN, SHOW."),
    "trainer": Entry("trainer", "trainer", "Train on the log and put better artifacts to use.", "train"),
    "seeds": Entry("seeds", "seeds", "Ask the analyst for the users that reach most distinct people together."),
    "diffuse": Entry("diffuse", "diffuse", "Ask the analyst how far a message from some users would spread."),
    "bots": Entry("bots", "bots", "Ask the analyst for suspected bots and for followers that do not count."),
    "model": Entry("model", "app", "Show, check, replace and explain the artifact in use."),
    "state": Entry("state", "app", "Inspect and verify the state, make and restore checkpoints."),
    "dlq": Entry("dlq", "app", "List, show, resend and delete dead letters."),
    "config": Entry("config", "config", "Show every setting with its value, source and meaning."),
    "doctor": Entry("doctor", "doctor", "Check broker, topics, disk, device and model, and show what to fix."),
}


WITHOUT_KERNELS = {
    "bots", "compare", "config", "connect", "diffuse", "doctor", "export", "query", "topics", "tail", "top", "worker",
}  # fmt: skip
"""Commands that compile no kernels, or choose the folder of kernels themselves."""
OPTIONAL = {"--skip-bad": "-1"}
"""Options whose value may be left out, with the value they have then."""


class LazyCommand(TyperCommand):
    """An entry in the list of commands; imports the command's module when it is called."""

    def __init__(self, name: str, entry: Entry) -> None:
        super().__init__(name=name, help=entry.help)
        self._entry = entry

    def load(self) -> Any:
        """Import the module and return the command."""
        entry = self._entry
        if entry.module not in WITHOUT_KERNELS:
            kernel_cache.prepare()
        exported = getattr(import_module(f"streams.commands.{entry.module}"), entry.attribute)
        command_app = exported if isinstance(exported, typer.Typer) else _single_command_app(exported)
        command = typer.main.get_command(command_app)
        command.name = self.name
        _examples.add_to(command, str(self.name))
        return command

    def make_context(self, info_name: str | None, args: list[str], *arguments: Any, **named: Any) -> Any:
        """Load the command and let it parse the arguments."""
        return self.load().make_context(info_name, _with_values(args), *arguments, **named)


class Root(TyperGroup):
    """The group of all commands whose module exists."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = {name: LazyCommand(name, entry) for name, entry in available().items()}


def _with_values(arguments: list[str]) -> list[str]:
    """Add the value to options of `OPTIONAL` that have none; click would use the next argument as the value."""
    completed = list(arguments)
    end = completed.index("--") if "--" in completed else len(completed)
    for index in range(end):
        option = completed[index]
        if option in OPTIONAL and not (index + 1 < end and completed[index + 1].isdecimal()):
            completed[index] = f"{option}={OPTIONAL[option]}"
    return completed


def available() -> dict[str, Entry]:
    """Return the commands whose module exists, in the order of the table."""
    return {name: entry for name, entry in COMMANDS.items() if (FOLDER / f"{entry.module}.py").is_file()}


def _single_command_app(function: Any) -> typer.Typer:
    """Return a Typer app with one command."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, rich_markup_mode=None)
    app.command()(function)
    return app


app = typer.Typer(
    cls=Root,
    name=NAME,
    no_args_is_help=True,
    # Tracebacks are plain, because they are written to logs.
    pretty_exceptions_enable=False,
    # Help is plain text, because it is also read in pipes and on pages.
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(requested: bool) -> None:
    if requested:
        typer.echo(f"{NAME} {package_version(NAME)}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and exit.")
    ] = False,
) -> None:
    """Groundswell scores social influence in real time: it reads events from Kafka and publishes scores and alerts."""


def run(arguments: Sequence[str]) -> int:
    """Run one command; returns its exit code: 0 success, 1 failure, 2 wrong usage."""
    try:
        code = typer.main.get_command(app).main(list(arguments), prog_name=NAME, standalone_mode=False)
    except typer.exceptions.TyperException as error:
        # Wrong usage, or the help of a group that is called without a command, which has several lines.
        text = error.format_message()
        typer.echo(safe_lines(text if "\n" in text else f"{NAME}: {text.rstrip('.')}; try --help"), err=True)
        return error.exit_code
    except typer.Abort:
        return 1
    except BrokenPipeError:
        return 1
    except OSError as error:
        typer.echo(f"{NAME}: {_system_error(error)}", err=True)
        return 1
    except Exception as error:
        entry = COMMANDS.get(arguments[0]) if arguments else None
        if missing := missing_library(error, entry.extra if entry else ""):
            typer.echo(f"{NAME}: {missing}", err=True)
            return 1
        if not on_purpose(error):
            raise
        typer.echo(f"{NAME}: {safe(one_line(error))}", err=True)
        return 1
    return code if isinstance(code, int) else 0


def _system_error(error: OSError) -> str:
    """Return the files of an error of the operating system and its text."""
    names = ", ".join(str(name) for name in (error.filename, error.filename2) if name is not None)
    return f"{names}: {reason(error)}" if names else reason(error)


def _escape_unencodable() -> None:
    """Escape characters that the encoding of a terminal or file does not have, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def main() -> None:
    """Run the `groundswell` script."""
    _escape_unencodable()
    process_memory.one_arena()
    process_memory.collect_rarely()
    code = run(sys.argv[1:])
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        # Prevent a second error of the interpreter's own flush. The reader of a pipe may close it early.
        sys.stdout = None
        if not isinstance(error, BrokenPipeError):
            typer.echo(f"{NAME}: standard output: {reason(error)}", err=True)
            code = code or 1
    sys.exit(code)


if __name__ == "__main__":
    main()
