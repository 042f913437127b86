"""The ports of the embedded Kafka."""

from __future__ import annotations

import socket

from streams.embedded import broker


def test_a_wanted_port_is_used_if_it_is_free() -> None:
    """A free one is the port for clients; a taken one is left to its owner."""
    wanted = broker._free_ports()[0]
    client, controller = broker._free_ports(wanted)
    assert (client, controller != wanted) == (wanted, True)
    with socket.socket() as taken:
        taken.bind((broker.HOST, wanted))
        taken.listen()
        assert broker._free_ports(wanted)[0] != wanted
