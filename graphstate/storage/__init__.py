"""RocksDB: row layouts, options, store, checkpoints, migrations."""
