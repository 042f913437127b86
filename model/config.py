"""Configuration of the network: sizes, relations, features and their scales, and the shape of every weight.

Relations and features have the names of `docs/graph.md`. They are repeated here because this package does not import
the graph's; a contract test compares the two.
"""

from __future__ import annotations

import json
import math
import re
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Final

import numpy as np
from numpy.typing import NDArray

from model.errors import ConfigError

SCHEMA: Final = 2
"""Version of the configuration and of the names of the weights."""

USER, CONTENT, COMMUNITY = "user", "content", "community"
TYPES: Final = (USER, CONTENT, COMMUNITY)

RELATIONS: Final = (
    ("follows", USER, USER),
    ("interacts", USER, USER),
    ("shared", USER, CONTENT),
    ("created", CONTENT, USER),
    ("member_of", USER, COMMUNITY),
    ("has_member", COMMUNITY, USER),
    ("reply_to", CONTENT, CONTENT),
)

PROPAGATED: Final = {
    USER: ("created", "received", "made", "followers", "following", "via", "delay_made"),
    CONTENT: ("sharers",),
    COMMUNITY: ("members",),
}

OWN: Final = (
    "past_mean", "recent_mean", "last", "created", "sharers", "received_short", "received_long", "created_long",
    "made", "authors", "made_short", "made_long", "delay_made", "since_created", "since_received", "since_made",
    "delay_received", "followers", "following", "via", "cold",
)  # fmt: skip

HISTORY: Final = ("past_mean", "recent_mean", "last")
"""Own features that describe a user's past reach."""

PROPAGATED_SCALE: Final = 0.25
"""Factor of propagated features before the first layer."""

_UNITS: Final = {"min": 60, "h": 3600, "d": 86_400, "w": 7 * 86_400}
_HORIZON_MIN_S, _HORIZON_MAX_S = 60, 60 * 86_400


def seconds_of(text: str) -> int:
    """Return the seconds of a duration such as 90min, 6h, 3d or 2w.

    Raises:
        ConfigError: the text is none.
    """
    match = re.fullmatch(r"(\d{1,6})\s*(min|h|d|w)", text.strip())
    if match is None:
        raise ConfigError(f"{text!r} is no duration: give minutes, hours, days or weeks, such as 90min, 6h, 3d or 2w")
    return int(match[1]) * _UNITS[match[2]]


def duration_text(seconds: float) -> str:
    """Return a duration in the largest unit that leaves at least one: 90 min, 6 h, 3 days."""
    if seconds >= 2 * 86_400 or seconds == 86_400:
        return f"{seconds / 86_400:.3g} day{'s' * (seconds != 86_400)}"
    return f"{seconds / 3600:.3g} h" if seconds >= 3600 else f"{seconds / 60:.3g} min"


def _own_scale() -> NDArray[np.float32]:
    scale = np.full(len(OWN), 0.125, np.float32)
    # Logarithms of reach come in 64ths, everything else in half octaves.
    scale[[OWN.index(name) for name in HISTORY]] = 1 / 64
    scale[OWN.index("cold")] = 1
    scale.setflags(write=False)
    return scale


OWN_SCALE: Final = _own_scale()
"""Factors that bring own features to about the same size where they are not relative to a population, `[21]`."""


@dataclass(frozen=True)
class ModelConfig:
    """Sizes and vocabulary of one network, and the scale of its output.

    Attributes:
        hidden: Width of each layer's output.
        heads: Attention heads per layer.
        head_hidden: Width of the head's hidden layer.
        window: Maximum number of sources per target and relation; 0 for all.
        floor: Counters below it are equal to neighbours.
        horizon_s: Time within which shares of a post count, in seconds.
        target_mean: Mean of the target (log reach).
        target_std: Standard deviation of the target.
        relations: Name, source type and target type of each relation.
        propagated: Names of the propagated features by node type.
        own: Names of the own features.
        schema: Version of the configuration.
    """

    hidden: int = 64
    heads: int = 2
    head_hidden: int = 64
    window: int = 16
    floor: int = 4
    horizon_s: int = 3 * 86_400
    target_mean: float = 0.0
    target_std: float = 1.0
    relations: tuple[tuple[str, str, str], ...] = RELATIONS
    propagated: dict[str, tuple[str, ...]] = field(default_factory=lambda: dict(PROPAGATED))
    own: tuple[str, ...] = OWN
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        """Refuse settings that no network can be built from."""
        if self.schema != SCHEMA:
            raise ConfigError(f"the configuration has schema {self.schema}, this version reads {SCHEMA}; train again")
        if min(self.hidden, self.heads, self.head_hidden, self.floor, self.horizon_s) < 1 or self.window < 0:
            raise ConfigError("hidden, heads, head_hidden, floor and horizon_s must be positive, window at least 0")
        if not _HORIZON_MIN_S <= self.horizon_s <= _HORIZON_MAX_S:
            raise ConfigError(
                f"a horizon of {duration_text(self.horizon_s)} is not served: give {duration_text(_HORIZON_MIN_S)} to "
                f"{duration_text(_HORIZON_MAX_S)}"
            )
        if self.hidden % self.heads:
            raise ConfigError(f"hidden ({self.hidden}) must be a multiple of heads ({self.heads})")
        if not (math.isfinite(self.target_mean) and math.isfinite(self.target_std) and self.target_std > 0):
            raise ConfigError(
                "target_mean and target_std must be finite, and target_std above 0, not "
                f"{self.target_mean} and {self.target_std}"
            )

    @property
    def channels(self) -> int:
        """Width of one head."""
        return self.hidden // self.heads

    @property
    def user_relations(self) -> tuple[tuple[str, str, str], ...]:
        """Relations into users: those of the second layer."""
        return tuple(relation for relation in self.relations if relation[2] == USER)

    @classmethod
    def preset(cls, name: str) -> ModelConfig:
        """Return the `default` sizes, or the wider ones of the published sketch (`source`).

        Raises:
            ConfigError: there is no such preset.
        """
        presets = {"default": cls(), "source": cls(hidden=128, heads=4)}
        if name not in presets:
            raise ConfigError(f"no preset named {name!r}: use one of {', '.join(presets)}")
        return presets[name]

    def scaled(self, mean: float, std: float) -> ModelConfig:
        """Return this configuration with the target's mean and standard deviation."""
        return replace(self, target_mean=float(mean), target_std=float(std))

    def to_json(self) -> str:
        """Return one JSON object with sorted keys; equal configurations give equal bytes."""
        return json.dumps(asdict(self), sort_keys=True, indent=1) + "\n"

    @classmethod
    def from_json(cls, text: str) -> ModelConfig:
        """Read the output of `to_json`.

        Raises:
            ConfigError: the text is not JSON, has missing or unknown fields, or is of another schema.
        """
        try:
            values = json.loads(text)
            known = {f.name for f in fields(cls)}
            if set(values) != known:
                raise ConfigError(f"the configuration must have exactly the fields {', '.join(sorted(known))}")
            values["relations"] = tuple((name, source, target) for name, source, target in values["relations"])
            values["propagated"] = {name: tuple(names) for name, names in values["propagated"].items()}
            values["own"] = tuple(values["own"])
            return cls(**values)
        except (TypeError, ValueError, AttributeError) as error:
            raise ConfigError(f"the configuration cannot be read: {error}") from error


def weight_shapes(config: ModelConfig) -> dict[str, tuple[int, ...]]:
    """Return the name and shape of every weight, in the order of the network's state dict."""
    width = config.hidden
    first = {name: len(names) for name, names in config.propagated.items()}
    second = dict.fromkeys(first, width)
    shapes: dict[str, tuple[int, ...]] = {}
    layers = ((config.relations, first, tuple(first)), (config.user_relations, second, (USER,)))
    for index, (relations, sizes, roots) in enumerate(layers):
        for name, source, target in relations:
            conv = f"layers.{index}.convs.{name}"
            shapes[f"{conv}.att"] = (1, config.heads, config.channels)
            shapes[f"{conv}.bias"] = (width,)
            for side, size in (("lin_l", sizes[source]), ("lin_r", sizes[target])):
                shapes[f"{conv}.{side}.weight"] = (width, size)
                shapes[f"{conv}.{side}.bias"] = (width,)
        for name in roots:
            shapes[f"layers.{index}.roots.{name}.weight"] = (width, sizes[name])
            shapes[f"layers.{index}.roots.{name}.bias"] = (width,)
    shapes["head.skip"] = (len(config.own),)
    shapes["head.hidden.weight"] = (config.head_hidden, width + len(config.own))
    shapes["head.hidden.bias"] = (config.head_hidden,)
    shapes["head.out.weight"] = (1, config.head_hidden)
    shapes["head.out.bias"] = (1,)
    return shapes
