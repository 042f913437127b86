"""RocksDB's options and the memory that stores share."""

from __future__ import annotations

from rocksdict import BlockBasedIndexType, BlockBasedOptions, Cache, DBCompressionType, Options, WriteBufferManager

_MEMTABLE_BYTES = 32 << 20
_WAL_BYTES = 256 << 20
_BUDGET_BYTES = 128 << 20


class RocksDbBudget:
    """Memory of RocksDB for blocks, filters and memtables, shared by all stores that get the same budget.

    Args:
        size: Its bytes; memtables take at most half of them.
    """

    def __init__(self, size: int = _BUDGET_BYTES) -> None:
        self.cache = Cache(size)
        self.memtables = WriteBufferManager.new_write_buffer_manager_with_cache(size // 2, False, self.cache)


def options(budget: RocksDbBudget, family: str = "") -> Options:
    """Return the options of a column family; without a name, those of the database."""
    result = Options(raw_mode=True)
    result.create_if_missing(True)
    result.create_missing_column_families(True)
    result.set_write_buffer_size(_MEMTABLE_BYTES)
    result.set_max_write_buffer_number(3)
    result.set_write_buffer_manager(budget.memtables)
    result.set_max_total_wal_size(_WAL_BYTES)
    result.set_keep_log_file_num(3)
    if family == "nodes":
        # Only this family holds ids. Uncompressed, a plain search of the files finds an id.
        result.set_compression_type(DBCompressionType.none())
    if family == "journal":
        # Uncompressed, it is read faster when the state is opened, and its size is a measure of the memory needed.
        result.set_compression_type(DBCompressionType.none())
    blocks = BlockBasedOptions()
    blocks.set_bloom_filter(10, False)
    blocks.set_block_cache(budget.cache)
    # Filters and indexes grow with the state. Partitioned, they stay within the cache's budget; a whole one is larger
    # than a shard of a small cache, and RocksDB would read it from the file for every row.
    blocks.set_cache_index_and_filter_blocks(True)
    blocks.set_index_type(BlockBasedIndexType.two_level_index_search())
    blocks.set_partition_filters(True)
    blocks.set_pin_top_level_index_and_filter(True)
    result.set_block_based_table_factory(blocks)
    return result
