"""Events and facts as columns: the form in which they travel from the decoder to the registers."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import compress, count

import numpy as np
from numpy.typing import NDArray

from graphstate.types import Int32s, Int64s, Mutation, UInt8s

ABSENT = -1
"""The number of an id that a mutation does not have."""


class IdNumbers:
    """Numbers ids in the order in which they are first looked up; a lookup is one call in C."""

    def __init__(self) -> None:
        self._numbers: dict[str | None, int] = defaultdict(count().__next__, {None: ABSENT, "": ABSENT})

    def of(self, ids: Sequence[str | None]) -> Int32s:
        """Return the number of each id, `ABSENT` for None and the empty string, `[n]`."""
        return np.fromiter(map(self._numbers.__getitem__, ids), np.int32, len(ids))

    def ids(self) -> list[str]:
        """Return the ids by number."""
        return [node_id for node_id in self._numbers if node_id]


@dataclass(frozen=True, slots=True, eq=False)
class EventColumns:
    """Mutations in their order, one array per field; ids are numbers of distinct ids.

    Attributes:
        kind: `Kind` or `Fact`, `[n]`.
        time: Event time (µs), `[n]`.
        user: Number of the user's id, `ABSENT` for facts about no user, `[n]`.
        other: Number of the other id, `ABSENT` if there is none, `[n]`.
        extra: Number of the third id, `ABSENT` if there is none, `[n]`.
        at: Number of a fact as the bits of an unsigned integer, 0 for events, `[n]`.
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
        rows = list(mutations)
        kind, time, user, other, extra, at = zip(*rows, strict=True) if rows else ((),) * 6
        numbers = IdNumbers()
        return cls(
            np.array(kind, np.uint8), np.array(time, np.int64), numbers.of(user), numbers.of(other),
            numbers.of(extra), np.array(at, np.uint64).view(np.int64), numbers.ids(),
        )  # fmt: skip

    @classmethod
    def joined(cls, parts: Sequence[EventColumns]) -> EventColumns:
        """Return the mutations of all parts, one after the other."""
        if not parts:
            return cls.of(())
        first = parts[0]
        if len(parts) == 1:
            return first
        if all(part.ids is first.ids for part in parts):
            ids, numbered = first.ids, [(part.user, part.other, part.extra) for part in parts]
        else:
            numbers, numbered = IdNumbers(), []
            for part in parts:
                # ABSENT is the last element, whose number is itself.
                places = np.append(numbers.of(part.ids), np.int32(ABSENT))
                numbered.append((places[part.user], places[part.other], places[part.extra]))
            ids = numbers.ids()
        user, other, extra = (np.concatenate(column) for column in zip(*numbered, strict=True))
        return cls(
            np.concatenate([part.kind for part in parts]), np.concatenate([part.time for part in parts]),
            user, other, extra, np.concatenate([part.at for part in parts]), ids,
        )  # fmt: skip

    def select(self, rows: NDArray[np.bool_] | Int64s | slice) -> EventColumns:
        """Return some mutations, with the ids of all."""
        return EventColumns(
            self.kind[rows], self.time[rows], self.user[rows], self.other[rows], self.extra[rows], self.at[rows],
            self.ids,
        )  # fmt: skip

    def compact(self) -> EventColumns:
        """Return the same mutations without the ids that none of them has."""
        used = np.zeros(len(self.ids) + 1, np.bool_)
        for column in (self.user, self.other, self.extra):
            used[column] = True
        used[ABSENT] = False
        if used[:-1].all():
            return self
        places = np.cumsum(used, dtype=np.int32) - np.int32(1)
        places[ABSENT] = ABSENT
        return EventColumns(
            self.kind, self.time, places[self.user], places[self.other], places[self.extra], self.at,
            list(compress(self.ids, used.tolist())),
        )  # fmt: skip

    def mutations(self) -> list[Mutation]:
        """Return the columns as mutations, for rare types and for tests."""
        ids: list[str | None] = [*self.ids, None]
        columns = (self.kind, self.time, self.user, self.other, self.extra, self.at.view(np.uint64))
        return [
            Mutation(kind, time, ids[user] or "", ids[other] or "", ids[extra], at)
            for kind, time, user, other, extra, at in zip(*(column.tolist() for column in columns), strict=True)
        ]
