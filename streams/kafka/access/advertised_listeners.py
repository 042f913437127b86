"""The addresses that Kafka advertises: a client that was let in goes on with those, not with the one it was given."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress

from streams.errors import BrokerError, one_line

CONNECT_S = 3.0
AT_ONCE = 32

Address = tuple[str, int]


class Unreachable(BrokerError):
    """No address that Kafka advertises can be reached."""

    def __init__(self, server: str, lost: dict[Address, str]) -> None:
        (host, port), why = next(iter(lost.items()))
        super().__init__(
            f"Kafka at {server} advertises {host}:{port}, which cannot be reached from here ({why}): "
            "set advertised.listeners of the broker to an address that can"
        )


async def unreachable(addresses: Iterable[Address], known: Address | None = None) -> dict[Address, str]:
    """The addresses to which no connection can be made, and why; `known` was connected to already."""
    turns = asyncio.Semaphore(AT_ONCE)

    async def connect(address: Address) -> str:
        try:
            async with turns, asyncio.timeout(CONNECT_S):
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
    found = await asyncio.gather(*map(connect, wanted))
    return {address: why for address, why in zip(wanted, found, strict=True) if why}
