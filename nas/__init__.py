"""Does a neural-architecture-search controller know what it is building? The library behind the
study.

The public names are loaded when they are first used: `import nas` imports no JAX.
"""

import importlib

_PUBLIC = {
    "TASKS": "nas.tasks",
    "Config": "nas.config",
    "RecurrentSpace": "nas.spaces.recurrent",
    "SearchSpace": "nas.spaces",
    "derive": "nas.derivation",
    "evolution": "nas.strategies",
    "factorised_policy": "nas.controllers",
    "local_search": "nas.strategies",
    "lstm_policy": "nas.controllers",
    "open_run": "nas.runs",
    "reinforce": "nas.strategies",
    "start": "nas.runs",
    "supernet_reward": "nas.supernets.recurrent.language_model",
    "train": "nas.runs",
    "uniform_policy": "nas.controllers",
}

__all__ = list(_PUBLIC)


def __getattr__(name):
    if name not in _PUBLIC:
        raise AttributeError(f"module 'nas' has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)
