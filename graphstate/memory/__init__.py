"""Arrays derived from RocksDB: columns, nodes, windows, features, frontier."""
