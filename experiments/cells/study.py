"""Trains many cells with many seeds block by block, keeps finished blocks, and makes the table."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from experiments import kept, lanes
from experiments.cells import training
from experiments.cells.recipe import Recipe
from nas import progress
from nas.data.cell_table import MEASURES, CellTable, canonical_cells
from nas.data.characters import Characters
from nas.spaces.recurrent import RecurrentSpace

BLOCK = 16  # trainings that are computed and kept together
_SAMPLE, _COPIES = 96, 97  # streams of random numbers


class Results(NamedTuple):
    """All trainings; R cells, S seeds."""

    decisions: np.ndarray  # [R, T]
    online: np.ndarray  # [R, S, 8] bits a character, by eighths of the training
    validation: np.ndarray  # [R, S] bits a character
    test: np.ndarray  # [R, S]
    skipped: np.ndarray  # [R, S] updates that were dropped because they were not finite


def cells(space: RecurrentSpace, sample: int, copies: int) -> np.ndarray:
    """int32[R, T]: of each class the canonical cell, or so many of them; then relabelled copies of
    some, fewer where fewer have one.

    Args:
      sample: how many, drawn uniformly from the classes; 0: all.
      copies: how many cells have a copy, drawn from those.
    """
    chosen = canonical_cells(space)
    if 0 < sample < len(chosen):
        rows = np.random.default_rng(_SAMPLE).permutation(len(chosen))[:sample]
        chosen = chosen[np.sort(rows)]
    rng, copied = np.random.default_rng(_COPIES), []
    for row in rng.permutation(len(chosen)):
        if len(copied) == copies:
            break
        others = space.copies(chosen[row], 2, rng)
        others = others[np.any(others != chosen[row], axis=1)]
        copied.extend(others[:1])
    return np.stack([*chosen, *copied])


def train(
    space: RecurrentSpace,
    recipe: Recipe,
    text: Characters,
    decisions: np.ndarray,
    seeds: Sequence[int],
    folder: pathlib.Path,
) -> Results:
    """Trains what `folder` does not hold yet; a kill loses the block that is being trained.

    One seed of all cells after the other.
    """
    every = [(row, seed) for seed in seeds for row in range(len(decisions))]
    blocks = [every[first : first + BLOCK] for first in range(0, len(every), BLOCK)]
    splits = training.Text(**{name: text.splits[name] for name in training.Text._fields})
    sha = kept.digest(*splits)
    described = [dataclasses.asdict(recipe), text.types, sha, decisions.tolist()]
    compiled = lanes.over_lanes(
        lambda lane, splits: training.train(space, recipe, len(text.types), *lane, splits),
    )
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    with progress.track("cells", total=len(every), unit="training") as advance:
        for number, block in enumerate(blocks):
            path, of_block = folder / f"{number:04}.npz", [*described, block]
            result = kept.read(path, of_block)
            if result is None:
                # Always as many: another number of lanes may be computed with other bits.
                full = [block[min(i, len(block) - 1)] for i in range(BLOCK)]
                rows, block_seeds = np.transpose(full)
                lane = decisions[rows], block_seeds.astype(np.uint32)
                trained = compiled(lane, splits)._asdict()
                result = {name: np.asarray(leaf)[: len(block)] for name, leaf in trained.items()}
                kept.write(path, of_block, result)
            found.append(result)
            advance(len(block), online=f"{result['online'][-1, -1]:.3f} bits")
    joined = {}
    for name in training.Trained._fields:
        flat = np.concatenate([result[name] for result in found])
        joined[name] = np.moveaxis(flat.reshape(len(seeds), len(decisions), *flat.shape[1:]), 0, 1)
    return Results(decisions, **joined)


def table(
    space: RecurrentSpace, results: Results, seeds: Sequence[int], settings: dict[str, object]
) -> CellTable:
    """The table of all cells."""
    measured = (results.online[:, :, -1], results.validation, results.test)
    bits = {name: np.asarray(v, float) for name, v in zip(MEASURES, measured, strict=True)}
    settings = settings | {"skipped_updates": int(results.skipped.sum())}
    return CellTable(space.num_nodes, tuple(seeds), settings, results.decisions, bits)
