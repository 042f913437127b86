"""Events and facts as columns: the form in which they travel from the decoder to the registers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from graphstate.types import Int32s, Int64s, Mutation, UInt8s

ABSENT = -1
"""The number of an id that a mutation does not have."""


@dataclass(frozen=True, slots=True, eq=False)
class EventColumns:
    """Mutations in their order, one array per field; ids are numbers of distinct ids.

    Attributes:
        kind: `Kind` or `Fact`, `[n]`.
        time: Event time (µs), `[n]`.
        user: Number of the user's id, `ABSENT` for facts about no user, `[n]`.
        other: Number of the other id, `ABSENT` if there is none, `[n]`.
        extra: Number of the third id, `ABSENT` if there is none, `[n]`.
        at: Number of a fact, 0 for events, `[n]`; a hash from 2⁶³ on is stored as the negative number of the same bits.
        ids: The distinct ids; an id may name nodes of several types.
    """

    kind: UInt8s
    time: Int64s
    user: Int32s
    other: Int32s
    extra: Int32s
    at: Int64s
    ids: list[str]

    def __len__(self) -> int:
        """Return the number of mutations."""
        return len(self.kind)

    @classmethod
    def of(cls, mutations: Iterable[Mutation]) -> EventColumns:
        """Return mutations as columns."""
        numbers: dict[str, int] = {}

        def number(node_id: str | None) -> int:
            return numbers.setdefault(node_id, len(numbers)) if node_id else ABSENT

        rows = [(m.kind, m.time, number(m.user), number(m.other), number(m.extra), m.at) for m in mutations]
        kind, time, user, other, extra, at = zip(*rows, strict=True) if rows else ((),) * 6
        return cls(
            np.array(kind, np.uint8), np.array(time, np.int64), np.array(user, np.int32), np.array(other, np.int32),
            np.array(extra, np.int32), np.array(at, np.uint64).view(np.int64), list(numbers),
        )  # fmt: skip

    def mutations(self) -> list[Mutation]:
        """Return the columns as mutations, for rare types and for tests."""
        ids: list[str | None] = [*self.ids, None]
        columns = (self.kind, self.time, self.user, self.other, self.extra, self.at.view(np.uint64))
        return [
            Mutation(kind, time, ids[user] or "", ids[other] or "", ids[extra], at)
            for kind, time, user, other, extra, at in zip(*(column.tolist() for column in columns), strict=True)
        ]
