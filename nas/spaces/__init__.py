"""Search spaces: the registry from a name in the configuration to a space. A new space is one file and one line here."""

from nas.spaces.recurrent import RecurrentSpace
from nas.spaces.space import Graphs, SearchSpace

SPACES = {"recurrent": RecurrentSpace}

__all__ = ["SPACES", "Graphs", "RecurrentSpace", "SearchSpace"]
