"""The errors of the graph.

GraphError
├── FormatError      another format or another spec wrote the folder
├── LockedError      another process has the folder open
└── DamagedError     the folder is not a readable state
"""


class GraphError(Exception):
    """An error of the state on disk that an operator can resolve."""


class FormatError(GraphError):
    """Another format version or other settings wrote the state on disk."""


class LockedError(GraphError):
    """Another process has the state on disk open."""


class DamagedError(GraphError):
    """The state on disk is not readable."""
