"""Tables of what is known of every architecture of a space; those of NAS-Bench-201 are read from a
file or generated.

Such a file is text, CSV or gzipped CSV, one line an architecture: its text form under
`architecture`, and accuracies in percent under the names in COLUMNS, in any order; a column `index`
is ignored. A pickle is never read: loading one runs the code in it.
"""

import csv
import dataclasses
import gzip
import os
import pathlib
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from nas.data import csv_lines
from nas.errors import UserError
from nas.spaces.nasbench201 import NASBench201Space
from nas.spaces.space import SearchSpace

DATA_SETS = ("cifar10", "cifar100", "imagenet")  # the last is ImageNet16-120
SPLITS = ("val", "test")
COLUMNS = {f"{data_set}-{split}": (data_set, split) for data_set in DATA_SETS for split in SPLITS}
SPACE = NASBench201Space()  # of what is read or generated here

_LOWEST, _HIGHEST = 10.0, 95.0  # of generated accuracies, percent
_NOISE = 0.3  # percent: that between architectures of one class of NAS-Bench-201


class Unit(NamedTuple):
    """What scores are in."""

    name: str  # of a difference of one
    reward: float  # that a search is given for a score of one
    digits: int  # decimals of a difference that are worth printing


POINTS = Unit("points", 0.01, 3)  # of accuracies in percent


@dataclasses.dataclass(frozen=True)
class ScoreTable:
    """What is known of all n architectures of a space, in the order of `space.every()`."""

    space: SearchSpace
    # (data set, one of SPLITS) -> [n] float32, in `unit`; higher is better
    scores: Mapping[tuple[str, str], np.ndarray]
    # [n] int32; architectures of one class compute the same and differ in scores by noise only
    classes: np.ndarray
    unit: Unit

    @property
    def data_sets(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(data_set for data_set, _ in self.scores))

    @property
    def different(self) -> int:
        """How many classes there are."""
        return len(np.unique(self.classes))

    def rewards(self, data_set: str) -> np.ndarray:
        """[n] float32: what a search is given for each architecture, on the validation split."""
        return self.scores[data_set, "val"] * np.float32(self.unit.reward)

    def class_mean(self, data_set: str, split: str) -> np.ndarray:
        """[n] float64: the mean score of each architecture's class."""
        counts = np.bincount(self.classes)
        sums = np.bincount(self.classes, np.asarray(self.scores[data_set, split], np.float64))
        return (sums / counts)[self.classes]


def read_table(path: str | os.PathLike) -> ScoreTable:
    """The table of NAS-Bench-201 in a CSV or gzipped CSV file.

    Raises:
      UserError: no such file, not text, other columns, an unknown operation, an accuracy that is
        not in 0..100, an architecture that is missing or there twice, fractions or errors in place
        of accuracies in percent; names the file and the line or column.
    """
    path = pathlib.Path(path)
    what = f"a table is a CSV file with the columns architecture, {', '.join(COLUMNS)}"
    rows = csv_lines.rows(path, csv_lines.read_text(path, what))
    _, header = next(rows, ("", []))
    missing = sorted({"architecture", *COLUMNS} - set(header))
    unknown = sorted(set(header) - {"index", "architecture", *COLUMNS})
    if missing or unknown or len(set(header)) < len(header):
        raise UserError(
            f"{path}: columns must be architecture, {', '.join(COLUMNS)}; got "
            f"{', '.join(header) or 'none'}"
        )
    name = header.index("architecture")
    places = [header.index(column) for column in COLUMNS]
    values = np.full((len(SPACE.every()), len(COLUMNS)), np.nan)
    for where, row in rows:
        if len(row) != len(header):
            raise UserError(f"{where}: {len(row)} fields, the header has {len(header)}")
        try:
            index = SPACE.index(SPACE.parse(row[name]))
        except UserError as error:
            raise UserError(f"{where}: {error}") from None
        if not np.isnan(values[index, 0]):
            raise UserError(f"{where}: {row[name]} is there twice")
        values[index] = [_accuracy(where, header[place], row[place]) for place in places]
    absent = np.flatnonzero(np.isnan(values[:, 0]))
    if len(absent):
        first = SPACE.format(SPACE.every()[absent[0]])
        raise UserError(
            f"{path}: {len(absent):,} of {len(values):,} architectures are missing, the first is "
            f"{first}"
        )
    _check_units(path, values)
    columns = zip(COLUMNS.values(), values.T.astype(np.float32), strict=True)
    return ScoreTable(SPACE, dict(columns), SPACE.canonical_class(SPACE.every()), POINTS)


def write_table(table: ScoreTable, path: str | os.PathLike) -> None:
    """Writes a table of NAS-Bench-201 as gzipped CSV, to be read by `read_table`; accuracies with
    four decimals.
    """
    with gzip.open(path, "wt", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["index", "architecture", *COLUMNS])
        rows = np.stack([table.scores[column] for column in COLUMNS.values()], axis=1)
        for index, (decisions, row) in enumerate(zip(SPACE.every(), rows, strict=True)):
            writer.writerow([index, SPACE.format(decisions), *(f"{value:.4f}" for value in row)])


def synthetic_table(seed: int, interaction: float) -> ScoreTable:
    """A generated table of NAS-Bench-201: effects of single operations, and of pairs of them that
    share no part of the former.

    On the test split an architecture has the accuracy that its effects give it, 10 to 95 percent;
    on the validation split noise of 0.3 points is added. Every architecture is a class of its own.
    Half of the variance of the effects is common to the data sets.

    Args:
      seed: of the effects and the noise.
      interaction: the share of the variance over all architectures that pairs explain, 0 to 1.

    Raises:
      UserError: an interaction outside 0..1.
    """
    if not 0 <= interaction <= 1:
        raise UserError(f"the strength of the interaction must be in 0..1, got {interaction}")
    rng = np.random.default_rng(seed)
    common = _effects(rng)
    accuracy = {}
    for data_set in DATA_SETS:
        single, pair = (a + b for a, b in zip(common, _effects(rng), strict=True))
        truth = (
            np.sqrt(1 - interaction) * single / single.std()
            + np.sqrt(interaction) * pair / pair.std()
        )
        truth = _LOWEST + (_HIGHEST - _LOWEST) * (truth - truth.min()) / np.ptp(truth)
        accuracy[data_set, "val"] = (truth + _NOISE * rng.standard_normal(len(truth))).astype(
            np.float32
        )
        accuracy[data_set, "test"] = truth.astype(np.float32)
    return ScoreTable(SPACE, accuracy, np.arange(len(truth), dtype=np.int32), POINTS)


def convert_nats_bench(path: str | os.PathLike, *, epochs: int = 12) -> ScoreTable:
    """The table of an official NATS-Bench file (topology search space), means over its training
    seeds.

    Reads it through the benchmark's own package, which unpickles it: only for a file whose origin
    is trusted.

    Args:
      path: the file or folder as its authors publish it, such as `NATS-tss-v1_0-3ffb9-simple`.
      epochs: 12 or 200, after how many epochs of training.

    Raises:
      UserError: the package is not installed, or there is no such file.
    """
    try:
        import nats_bench
    except ImportError:
        raise UserError(
            "reading a NATS-Bench file needs its package: pip install nats_bench"
        ) from None
    if not pathlib.Path(path).exists():
        raise UserError(f"{path}: no such file or folder")
    api = nats_bench.create(str(path), "tss", fast_mode=pathlib.Path(path).is_dir(), verbose=False)
    # validation accuracy on CIFAR-10 is that of networks trained on half of the training data
    sources = {
        ("cifar10", "val"): ("cifar10-valid", "valid-accuracy"),
        ("cifar10", "test"): ("cifar10", "test-accuracy"),
        ("cifar100", "val"): ("cifar100", "valid-accuracy"),
        ("cifar100", "test"): ("cifar100", "test-accuracy"),
        ("imagenet", "val"): ("ImageNet16-120", "valid-accuracy"),
        ("imagenet", "test"): ("ImageNet16-120", "test-accuracy"),
    }
    every = SPACE.every()
    accuracy = {column: np.zeros(len(every), np.float32) for column in sources}
    for decisions in every:
        number = api.query_index_by_arch(SPACE.format(decisions))
        for column, (data_set, metric) in sources.items():
            info = api.get_more_info(number, data_set, hp=f"{epochs:02d}", is_random=False)
            accuracy[column][SPACE.index(decisions)] = info[metric]
    return ScoreTable(SPACE, accuracy, SPACE.canonical_class(every), POINTS)


def _check_units(path, values):
    """That columns of numbers in 0..100 are accuracies in percent."""
    nothing = values[SPACE.index(np.zeros(SPACE.num_decisions, int))]  # no path: it only guesses
    for column, of, guessed in zip(COLUMNS, values.T, nothing, strict=True):
        if of.max() <= 1:
            raise UserError(
                f"{path}: {column} must be in percent, its highest value is {of.max():g}; a "
                "fraction must be multiplied by 100"
            )
        if of.min() < guessed and guessed >= np.quantile(of, 0.99):
            raise UserError(
                f"{path}: {column} must be accuracies, higher where better, but the architecture "
                f"without a path has {guessed:g}, among the highest; 100 less an error is an "
                "accuracy"
            )


def _accuracy(where, column, text) -> float:
    try:
        value = float(text)
    except ValueError:
        value = np.nan
    if not 0 <= value <= 100:
        raise UserError(f"{where}: {column} must be an accuracy in percent, 0 to 100, got {text!r}")
    return value


def _effects(rng) -> tuple[np.ndarray, np.ndarray]:
    """[15625] summed effects of single operations, and of pairs; means zero, each uncorrelated with
    every single operation.
    """
    every, (choices, length) = SPACE.every(), (SPACE.max_choices, SPACE.num_decisions)
    single, pairs = (np.zeros(len(every)) for _ in range(2))
    for t in range(length):
        effect = rng.standard_normal(choices)
        single += (effect - effect.mean())[every[:, t]]
        for s in range(t):
            effect = rng.standard_normal((choices, choices))
            effect = (
                effect - effect.mean(axis=0) - effect.mean(axis=1, keepdims=True) + effect.mean()
            )
            pairs += effect[every[:, s], every[:, t]]
    return single, pairs
