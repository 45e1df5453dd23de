"""Search strategies: what proposes architectures and learns from their rewards. A new one is one file and one line here."""

from nas.strategies.reinforce import reinforce

STRATEGIES = {"reinforce": reinforce}

__all__ = ["STRATEGIES", "reinforce"]
