"""What events mean: registers, aggregates, remote facts, eviction.

How counters decay is not decided here: `RINGS` in `graphstate/memory/node_tables.py` has their half-lives.
"""
