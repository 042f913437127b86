"""Checks the addresses that Kafka advertises: after its first connection a client uses only those."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress

from streams.errors import BrokerError, one_line

CONNECT_S = 3.0
"""Maximum duration of an attempt to connect."""
PARALLEL = 32
"""Maximum attempts at the same time."""

Address = tuple[str, int]


class Unreachable(BrokerError):
    """No address that Kafka advertises is reachable."""

    def __init__(self, server: str, errors: dict[Address, str]) -> None:
        (host, port), why = next(iter(errors.items()))
        super().__init__(
            f"Kafka at {server} advertises {host}:{port}, which cannot be reached from here ({why}): "
            "set advertised.listeners of the broker to an address that is reachable"
        )


async def unreachable(addresses: Iterable[Address], known: Address | None = None) -> dict[Address, str]:
    """Return the unreachable addresses with the error of each.

    Args:
        addresses: the addresses.
        known: an address that is not tried, as there is a connection to it.
    """
    slots = asyncio.Semaphore(PARALLEL)

    async def connect(address: Address) -> str:
        try:
            async with slots, asyncio.timeout(CONNECT_S):
                _, writer = await asyncio.open_connection(*address)
        except TimeoutError:
            return f"no answer in {CONNECT_S:.0f} s"
        except OSError as error:
            return error.strerror or one_line(error)
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()
        return ""

    wanted = sorted(set(addresses) - {known})
    errors = await asyncio.gather(*map(connect, wanted))
    return {address: error for address, error in zip(wanted, errors, strict=True) if error}
