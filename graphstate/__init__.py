"""The graph: what the events add up to, kept in RocksDB and in arrays."""
