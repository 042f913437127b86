"""Arrays derived from RocksDB: columns, nodes, decayed counters and their half-lives, windows, features, frontier."""
