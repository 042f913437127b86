"""The errors of the graph.

GraphError
├── FormatError      the folder holds another format version, or another spec
├── LockedError      another process has the folder open
└── DamagedError     the folder cannot be read as a graph
"""


class GraphError(Exception):
    """Something about the graph's state that the operator can act on."""


class FormatError(GraphError):
    """The state on disk was written by another format version or with other settings."""


class LockedError(GraphError):
    """The state on disk is open in another process."""


class DamagedError(GraphError):
    """The state on disk is not a readable graph."""
