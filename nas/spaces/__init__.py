"""Search spaces: the registry from a name in the configuration to a space. A new space is one file and one line here."""

from nas.spaces.nasbench201 import NASBench201Space
from nas.spaces.recurrent import RecurrentSpace
from nas.spaces.space import Graphs, SearchSpace

SPACES = {"recurrent": RecurrentSpace, "nasbench201": NASBench201Space}

__all__ = ["SPACES", "Graphs", "NASBench201Space", "RecurrentSpace", "SearchSpace"]
