"""Does a neural-architecture-search controller know what it is building? The library behind the
study.

Public names, loaded when they are first used (`import nas` imports no JAX):

  Config             every setting of a run
  TASKS              name -> classes of a task's search space, data set and network
  SearchSpace        base class of search spaces: decisions, and the graph they describe
  RecurrentSpace     the search space of ENAS' recurrent cells
  lstm_policy        the LSTM controller of ENAS
  factorised_policy  a policy with one free distribution per decision
  uniform_policy     a policy that draws every decision uniformly
  reinforce          a strategy: policy gradient, with or without a memory
  evolution          a strategy: regularised evolution
  local_search       a strategy: local search
  supernet_reward    rewards from the recurrent language model with shared weights
  start              starts a search in a run directory, or continues the one there
  open_run           opens the run directory of a search from its newest checkpoint
  derive             ranks architectures sampled from a search under its shared weights
  train              trains one architecture from scratch in a run directory

Packages:

  spaces       search spaces
  data         texts, images and tables as data sets
  supernets    networks with shared weights, and the same networks trained alone
  controllers  policies, which propose decisions
  strategies   what proposes architectures and learns from their rewards
  evaluation   from arrays to numbers: similarities, correlations, probes, tests
  report       from numbers to pages: tables, figures, HTML

Main modules:

  types         array types, and the interfaces of policy, strategy, reward and model
  config        settings, and how they are read and checked
  tasks         the registry of tasks
  objectives    the controller's losses and baseline
  memory        architectures drawn from old controller parameters
  archive       architectures scored most recently, with their rewards
  steps         what a search computes, as pure functions
  search        the loop that alternates between shared weights and strategy
  training      training from scratch
  derivation    from a finished search to the architecture it found
  runs          run directories
  measurements  what an evaluation measures of a run, as arrays
  checkpoint    checkpoints, verified by a SHA-256
  logs          metrics of every step
  parallel      several devices and processes
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
