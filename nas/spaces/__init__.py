"""Search spaces: what all have in common. A new one is one file; `nas.tasks` says what it is part
of.
"""

from nas.spaces.space import Graphs, SearchSpace

__all__ = ["Graphs", "SearchSpace"]
