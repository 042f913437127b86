"""The graph of the events: registers, counters, windows and features, in RocksDB and in arrays."""
