"""Sources of settings, in this order: command line, environment, files of secrets, a TOML file, defaults.

`gather` reads the sources and `examine` validates the values. Both collect all problems, so that `config` and `doctor`
can list them; no problem contains the value of a secret.
"""

from __future__ import annotations

import difflib
import logging
import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar, get_args

from pydantic import SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, EnvSettingsSource, TomlConfigSettingsSource
from pydantic_settings import SettingsError as UnreadableValue

log = logging.getLogger(__name__)

CONFIG = "config"
"""With the prefix, the variable that names a TOML file; it is no setting itself."""
FILE = "_file"
"""Suffix of a secret's name: the variable that names the file of the secret."""
ENVIRONMENT, DEFAULT, ARGUMENT = "environment", "default", "command line"
SECRET_BYTES = 65_536
SEE = "see docs/settings.md"

_LINK = re.compile(
    r"(?:[A-Z0-9_]+_)?"
    r"(?:SERVICE_HOST|SERVICE_PORT(?:_[A-Z0-9_]+)?|PORT_\d+_(?:TCP|UDP|SCTP)(?:_(?:PROTO|PORT|ADDR))?)"
)
_LINK_PORT = re.compile(r"(?:[A-Z0-9_]+_)?PORT")
_LINK_ADDRESS = re.compile(r"(?:tcp|udp|sctp)://.*", re.IGNORECASE)
_ALMOST = 0.85
"""Similarity of a variable's beginning to the prefix from which on it counts as misspelt."""

S = TypeVar("S", bound=BaseSettings)


@dataclass
class Gathered:
    """Raw values and their origins by field, and the problems of the sources themselves."""

    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def add(self, values: Mapping[str, Any], origin: str) -> None:
        """Add the values of a source; earlier sources have precedence."""
        for name, value in values.items():
            if name not in self.values:
                self.values[name], self.origins[name] = value, origin


@dataclass(frozen=True)
class Examined(Generic[S]):
    """Validated settings.

    Attributes:
        settings: the settings, with the default in place of each invalid value.
        origins: by field, the source of its value.
        problems: one line for each invalid value.
        notes: one line for each variable that is ignored and could be mistaken for a setting.
    """

    settings: S
    origins: dict[str, str]
    problems: list[str]
    notes: list[str]


class Environment(EnvSettingsSource):
    """The environment without the variables that Kubernetes injects for a Service."""

    def _load_env_vars(self) -> Mapping[str, str | None]:
        return {name: value for name, value in super()._load_env_vars().items() if not _is_link(name, value, self)}


def _is_link(name: str, value: str | None, source: EnvSettingsSource) -> bool:
    return is_service_link(name.upper(), value or "", source.env_prefix.upper())


def is_service_link(name: str, value: str, prefix: str) -> bool:
    """Return whether Kubernetes injects the variable for a Service whose name is the prefix, so it is no setting."""
    if not name.startswith(prefix):
        return False
    rest = name.removeprefix(prefix)
    # GROUNDSWELL_PORT=7000 may be a misspelt setting; Kubernetes' variable of that name holds an address.
    return bool(_LINK.fullmatch(rest) or (_LINK_PORT.fullmatch(rest) and _LINK_ADDRESS.fullmatch(value)))


def secret_fields(cls: type[BaseSettings]) -> list[str]:
    """Return the fields whose values are secrets: never shown, and readable from a file each."""
    return [
        name for name, info in cls.model_fields.items() if SecretStr in (info.annotation, *get_args(info.annotation))
    ]


def file_names(cls: type[BaseSettings]) -> dict[str, str]:
    """Return, by secret field, the name that gives its file."""
    return {name: name + FILE for name in secret_fields(cls) if name + FILE not in cls.model_fields}


def known_names(cls: type[BaseSettings]) -> list[str]:
    """Return every valid variable: of the fields, of the files of secrets, and of the TOML file."""
    names = [*cls.model_fields, *file_names(cls).values(), CONFIG]
    return [_variable(cls, name) for name in names]


def _variable(cls: type[BaseSettings], name: str) -> str:
    return f"{cls.model_config.get('env_prefix', '')}{name}".upper()


def _environment_value(cls: type[BaseSettings], name: str) -> str:
    """Return the value of a variable that is no field; empty if it is not set."""
    variable = _variable(cls, name)
    return next((value for key, value in os.environ.items() if key.upper() == variable), "")


def gather(cls: type[BaseSettings], arguments: Mapping[str, Any]) -> Gathered:
    """Read every source; `arguments` have precedence over the others."""
    gathered = Gathered()
    gathered.add(arguments, ARGUMENT)
    try:
        gathered.add(Environment(cls)(), ENVIRONMENT)
    except UnreadableValue as error:
        gathered.problems.append(f"{error}; {SEE}")
    table = _toml(cls, gathered.problems)
    _secrets(cls, table, gathered)
    gathered.add(table, str(_environment_value(cls, CONFIG)))
    gathered.problems[:0] = _misspelt(cls, os.environ.items())
    return gathered


def _toml(cls: type[BaseSettings], problems: list[str]) -> dict[str, Any]:
    """Return the table of the TOML file without unknown keys; empty if no file is named."""
    name, variable = _environment_value(cls, CONFIG), _variable(cls, CONFIG)
    if not name:
        return {}
    path = Path(name)
    try:
        path.open("rb").close()
        table = TomlConfigSettingsSource(cls, toml_file=path).toml_data
    except OSError as error:
        problems.append(f"{variable}: {name} cannot be read ({error.strerror}); it must name a TOML file")
        return {}
    except tomllib.TOMLDecodeError as error:
        problems.append(f"{variable}: {name} is not valid TOML: {error}")
        return {}
    except UnicodeDecodeError:
        problems.append(f"{variable}: {name} is not valid TOML: it is not UTF-8")
        return {}
    known = [*cls.model_fields, *file_names(cls).values()]
    for key in sorted(table.keys() - set(known)):
        guess = _closest(key.lower().removeprefix(_variable(cls, "").lower()), known)
        problems.append(f"{_place(path, key)}: {key} is no setting{_hint(guess)} {SEE}")
    return {key: table[key] for key in known if key in table}


def _place(path: Path, key: str) -> str:
    """Return the file and the line of a key; the file alone if the line cannot be found."""
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return str(path)
    key_at_begin = re.compile(rf"\s*\[*\s*[\"']?{re.escape(key)}[\"']?\s*[=.\]]")
    number = next((number for number, line in enumerate(lines, 1) if key_at_begin.match(line)), None)
    return f"{path}, line {number}" if number else str(path)


def _secrets(cls: type[BaseSettings], table: dict[str, Any], gathered: Gathered) -> None:
    """Read the secrets whose files are named by the environment or the TOML table.

    Removes the names of the files from the table.
    """
    config = _environment_value(cls, CONFIG)
    for secret, name in file_names(cls).items():
        variable, toml = _variable(cls, name), table.pop(name, None)
        from_environment = _environment_value(cls, name)
        if gathered.origins.get(secret) == ARGUMENT:
            continue
        if from_environment and secret in gathered.values:
            gathered.problems.append(f"{_variable(cls, secret)} and {variable} are both set: unset one of them")
        elif from_environment:
            _read_secret(secret, from_environment, variable, gathered)
        elif toml is not None and secret in table:
            gathered.problems.append(f"{config}: {secret} and {name} are both set: remove one of them")
        elif toml is not None and secret not in gathered.values:
            _read_secret(secret, toml, f"{config}: {name}", gathered)


def _read_secret(secret: str, path: object, named: str, gathered: Gathered) -> None:
    """Add the content of a secret's file, without the newline at its end."""
    if not isinstance(path, str):
        gathered.problems.append(f"{named}: must be the path of a file")
        return
    try:
        with Path(path).open("rb") as file:
            text = file.read(SECRET_BYTES + 1).decode()
    except OSError as error:
        gathered.problems.append(f"{named}: {path} cannot be read ({error.strerror})")
    except UnicodeDecodeError:
        gathered.problems.append(f"{named}: {path} is not UTF-8 text")
    else:
        value = text.removesuffix("\n").removesuffix("\r")
        if not value or len(text) > SECRET_BYTES:
            gathered.problems.append(f"{named}: {path} {'is too large for a secret' if value else 'is empty'}")
            return
        gathered.add({secret: value}, f"file {path}")


def _misspelt(cls: type[BaseSettings], variables: Iterable[tuple[str, str]]) -> Iterator[str]:
    """Yield a problem for each variable that has no effect and looks like a misspelt setting.

    Such a variable has the prefix but is no setting, or is a setting with a misspelt prefix.
    """
    prefix, known = _variable(cls, ""), known_names(cls)
    settings = {name.removeprefix(prefix) for name in known}
    for given, value in sorted(variables):
        name = given.upper()
        if name in known or is_service_link(name, value, prefix):
            continue
        if name.startswith(prefix):
            guess = _closest(name.removeprefix(prefix), settings)
            yield f"{given} is no setting{_hint(guess and prefix + guess)} unset it, or {SEE}"
            continue
        head, _, rest = name.partition("_")
        rest = rest.lstrip("_")
        if rest in settings and difflib.SequenceMatcher(None, head, prefix.rstrip("_")).ratio() >= _ALMOST:
            yield f"{given} is no setting{_hint(prefix + rest)} unset it, or {SEE}"


def _closest(name: str, known: Iterable[str]) -> str:
    return next(iter(difflib.get_close_matches(name, list(known), n=1)), "")


def _hint(guess: str) -> str:
    return f": did you mean {guess}? Otherwise" if guess else ":"


def ignored_links(cls: type[BaseSettings]) -> list[str]:
    """Return a line for each variable that has a setting's name and the value of a Kubernetes Service link."""
    prefix, known = _variable(cls, ""), set(known_names(cls))
    return [
        f"{name}={value} is ignored: Kubernetes sets it for a Service of that name; give the Service another name, or "
        "the pod enableServiceLinks: false, to use this setting"
        for name, value in sorted(os.environ.items())
        if name.upper() in known and is_service_link(name.upper(), value, prefix)
    ]


def warn(cls: type[BaseSettings]) -> None:
    """Log the variables that are ignored and could be mistaken for settings."""
    for line in ignored_links(cls):
        log.warning(line)


def examine(cls: type[S], arguments: Mapping[str, Any]) -> Examined[S]:
    """Read and validate all sources; each invalid value is replaced by the default and reported as a problem."""
    gathered = gather(cls, arguments)
    values, problems = dict(gathered.values), gathered.problems
    while True:
        try:
            settings = cls(**values)
            break
        except ValidationError as error:
            details = _errors(error)
            problems += [_explain(cls, detail, gathered.origins) for detail in details]
            invalid = {str(detail["loc"][0]) for detail in details if detail["loc"]}
            if not invalid & values.keys():
                settings = _without_joint_checks(cls, values)
                break
            values = {name: value for name, value in values.items() if name not in invalid}
    origins = {name: gathered.origins.get(name, DEFAULT) for name in cls.model_fields}
    return Examined(settings, origins, problems, ignored_links(cls))


def _without_joint_checks(cls: type[S], values: dict[str, Any]) -> S:
    """Return settings whose fields are valid each, without the checks of several fields together."""
    accept = {
        name: model_validator(mode="after")(lambda self: self) for name in cls.__pydantic_decorators__.model_validators
    }
    unchecked = type(cls.__name__, (cls,), {"__module__": __name__, **accept})(**values)
    return cls.model_construct(**dict(unchecked))


def _errors(error: ValidationError) -> list[Any]:
    return list(error.errors(include_url=False, include_input=False, include_context=False))


def _explain(cls: type[BaseSettings], error: Any, origins: Mapping[str, str]) -> str:
    """Return an error as one line with its variable or its line in the TOML file; never with a secret's value."""
    problem = str(error["msg"]).removeprefix("Value error, ")
    if not error["loc"]:
        return f"settings: {problem}"
    name = str(error["loc"][0])
    origin = origins.get(name, DEFAULT)
    if origin.startswith("file "):
        return f"{_variable(cls, name + FILE)}: {problem}; {SEE}"
    if origin not in {ENVIRONMENT, DEFAULT, ARGUMENT}:
        return f"{_place(Path(origin), name)}: {name}: {problem}; {SEE}"
    return f"{_variable(cls, name)}: {problem}; {SEE}"
