"""What all search spaces have in common. A new space is one file, and becomes part of a task in
`nas.tasks`.
"""

from nas.spaces.space import Graphs, SearchSpace

__all__ = ["Graphs", "SearchSpace"]
