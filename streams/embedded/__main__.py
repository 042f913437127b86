"""Run the embedded Kafka by itself, for development: `python -m streams.embedded [lock]`.

Without an argument it starts a broker, prints its address and waits for Ctrl-C; with `lock` it resolves the jars again
and writes kafka.lock.
"""

from __future__ import annotations

import signal
import sys
from contextlib import suppress

from streams.embedded import EmbeddedKafka, jars

if __name__ == "__main__":
    if sys.argv[1:] == ["lock"]:
        sys.stdout.write(f"{jars.LOCK.name}: {jars.write_lock()} jars\n")
    else:
        with EmbeddedKafka() as kafka, suppress(KeyboardInterrupt):
            sys.stdout.write(f"{kafka.address}\n")
            sys.stdout.flush()
            signal.pause()
