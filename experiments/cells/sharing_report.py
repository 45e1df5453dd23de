"""What is said of shared weights beside cells trained alone: numbers, tables and figures."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure
from scipy.stats import kendalltau, rankdata

from experiments.cells import sharing
from experiments.cells.sharing import Queries, Ranked
from experiments.cells.supernet import PROPOSALS, Searched
from experiments.tabular import figures, judging, peers, settings
from experiments.tabular.judging import Judge
from nas.data.cell_table import BITS, CellTable
from nas.evaluation import landscape, statistics
from nas.evaluation.statistics import Interval
from nas.report.tables import Column, Empty, Row, Table

BY_SIZE = "Does sharing rank worse the larger the space?"
BY_STEPS = "Does sharing rank worse the shorter it is trained?"
EXACT = "What do shared weights tell of cells?"
SEARCHES = "What does a search lose to shared weights?"
_COMPARED = ("shared weights against training alone", "two trainings alone", "two supernets")
_RESAMPLES = 1000
_DRAWN = (settings.RANDOM, peers.LOCAL_SEARCH, sharing.PG)
_TITLES = settings.TITLES | {
    peers.LOCAL_SEARCH: peers.ARMS[peers.LOCAL_SEARCH].title,
    sharing.PG_AS_MEMORY: "PG only, settings of PG + memory",
}


class Truth(NamedTuple):
    """A table as searches see it and as they are judged, of all architectures; bits a character."""

    classes: np.ndarray  # [n] int; equal for those that compute the same
    validation: np.ndarray  # [n] mean over seeds
    test: np.ndarray  # [n] mean over seeds
    seeds: Mapping[str, np.ndarray]  # measure -> [S, C] of each class
    first: np.ndarray  # [C] an architecture of each class

    @classmethod
    def of(cls, table: CellTable) -> "Truth":
        rows = table.rows()
        first = np.unique(rows, return_index=True)[1]
        means = (table.bits[name].mean(axis=1)[rows] for name in ("validation", "test"))
        by_seed = {name: bits[rows[first]].T for name, bits in table.bits.items()}
        return cls(rows, *means, by_seed, first)

    def regret(self, chosen: np.ndarray) -> np.ndarray:
        """[...] bits by which architectures [...] are worse on test than the best."""
        return self.test[chosen] - self.test.min()


# How far two measures agree.


def spearman(first: np.ndarray, second: np.ndarray) -> float:
    """Mean over pairs of a measurement of [M, n] and one of [N, n]."""
    return float(np.mean(_standard(first) @ _standard(second).T))


def kendall(first: np.ndarray, second: np.ndarray) -> float:
    """Mean over pairs of a measurement of [M, n] and one of [N, n]."""
    return float(np.mean([kendalltau(a, b).statistic for a in first for b in second]))


def repeated(values: np.ndarray, statistic=spearman) -> float:
    """Mean over pairs of two of the measurements [M, n]."""
    pairs = [(i, j) for i in range(len(values)) for j in range(i)]
    return float(np.mean([statistic(values[[i]], values[[j]]) for i, j in pairs]))


def agreement(ranked: Ranked, statistic=spearman, seed: int = 0) -> dict[str, Interval]:
    """What is compared -> how far single measurements agree, 95 % over resampled cells."""
    values, drawn = _compared(*ranked, statistic), _resampled(ranked, statistic, seed)
    found = zip(_COMPARED, values, drawn.T, strict=True)
    return {name: _interval(value, of) for name, value, of in found}


def change(first: Ranked, second: Ranked, *, paired: bool) -> Interval:
    """By how much Spearman's correlation of shared weights with training alone differs, second less
    first, 95 % over resampled cells.

    Args:
      paired: whether both are of the same cells, and not of independent samples.
    """
    before, after = (
        _resampled(of, spearman, 0 if paired else seed)[:, 0]
        for seed, of in enumerate((first, second))
    )
    return _interval(spearman(*second) - spearman(*first), after - before)


def _compared(shared, alone, statistic) -> tuple[float, ...]:
    """The statistic of each of _COMPARED."""
    return statistic(shared, alone), *(repeated(values, statistic) for values in (alone, shared))


def _resampled(ranked, statistic, seed) -> np.ndarray:
    """[_RESAMPLES, 3] `_compared` of resampled cells."""
    rng, count = np.random.default_rng(seed), ranked.alone.shape[1]
    rows = rng.integers(count, size=(_RESAMPLES, count))
    return np.array([_compared(*(of[:, some] for of in ranked), statistic) for some in rows])


def _interval(value, drawn) -> Interval:
    limits = np.nanquantile(drawn, [0.025, 0.975])  # some draws are of one cell alone
    return Interval(value, *map(float, limits))


def between_copies(values: np.ndarray, classes: np.ndarray) -> float:
    """The share of the variance of values [n] that is within classes [n]."""
    numbers = np.unique(classes, return_inverse=True)[1]
    means = np.bincount(numbers, values) / np.bincount(numbers)
    return float(np.var(values - means[numbers]) / np.var(values))


# By size, and by steps.


def by_size(found: Mapping[int, Ranked], command: str) -> tuple[Table, str, Figure]:
    """Table, sentence and figure of spaces by their number of nodes."""
    note = "steps, width, text, batch and optimiser are equal at all sizes."
    return _by(found, BY_SIZE, "nodes", note, command, paired=False)


def by_steps(found: Mapping[int, Ranked], nodes: int, command: str) -> tuple[Table, str, Figure]:
    """Table, sentence and figure of the space with that many nodes, by steps of shared weights."""
    note = (
        f"the same cells of {nodes} nodes for all; the learning rate falls to 0 in each training."
    )
    return _by(found, BY_STEPS, "steps", note, command, paired=True, log=True)


def _by(found, question, unit, note, command, *, paired, log=False) -> tuple[Table, str, Figure]:
    """Of samples of cells by a number of `unit`."""
    told = {number: agreement(ranked) for number, ranked in found.items()}
    rows = []
    for number, ranked in found.items():
        taus = agreement(ranked, kendall)
        for name in _COMPARED:
            counts = [f"{number}", float(ranked.alone.shape[1])]
            texts = [of[name].text() for of in (told[number], taus)]
            rows.append(Row([*counts, name, *texts], name != _COMPARED[0]))
    columns = [Column(unit), Column("cells", 0), Column("what is compared")]
    columns += [Column("Spearman"), Column("Kendall's tau")]
    some = next(iter(found.values()))
    notes = [
        f"Validation loss of single measurements: the mean over pairs of one of {len(some.shared)} "
        f"supernets and one of {len(some.alone)} trainings. 95 % intervals over resampled cells.",
        f"Cells of supernets are drawn uniformly; {note}",
    ]
    least, most = min(told), max(told)
    ends = [told[number] for number in (least, most)]
    sentence = "; ".join(
        f"{name} {ends[0][name].estimate:.2f} at {least} {unit}, {ends[1][name].text(2)} at {most}"
        for name in _COMPARED
    )
    changed = change(found[least], found[most], paired=paired).text(2)
    sentence = f"{sentence}. Shared weights at {most} less at {least} {unit}: {changed}"
    curves = {}
    for name in _COMPARED:
        values = np.array([told[number][name] for number in told])
        curves[name] = np.array(list(told)), *values.T
    labels = {"x_label": unit, "y_label": "Spearman's correlation"}
    figure = figures.bands(curves, **labels, log=log)
    table = Table(question, columns, rows, notes, command)
    return table, f"Spearman's correlation: {sentence}.", figure


# Exactly.


def exact(truth: Truth, found: Mapping[str, Searched], space, command: str) -> tuple[Table, str]:
    """Table and sentence of all architectures, under the supernets of every policy."""
    measured = {_TITLES[policy]: _of_policy(truth, of, space) for policy, of in found.items()}
    rows = []
    for title, numbers in (measured | {"trained alone, one seed": _ceiling(truth)}).items():
        told = (
            _over(numbers[name], _DIGITS.get(name, 3)) if name in numbers else Empty("-")
            for name in _NUMBERS
        )
        rows.append(Row([title, *told], title not in measured))
    columns = [Column("weights shared by cells of"), *map(Column, _NUMBERS)]
    supernets = len(next(iter(found.values())).bits)
    seeds = len(truth.seeds["test"])
    notes = [
        f"Means over {supernets} supernets [95 % interval]; truth is test loss, the mean of "
        f"{seeds} seeds of a class, or of the others where one seed is judged.",
        "Corrected: divided by the square root of the reliability of the truth. Best quarter: by "
        "truth. Regret in bits a character on test, of the best of all architectures by the loss "
        f"in question, and of the best of {PROPOSALS} proposals of the policy at the end.",
    ]
    sentence = "; ".join(f"{title} {_over(of['Spearman'])}" for title, of in measured.items())
    return Table(EXACT, columns, rows, notes, command), f"Spearman with the truth: {sentence}."


_BEST = "regret of the best"
_NUMBERS = (
    "Spearman",
    "Kendall's tau",
    "Spearman, corrected",
    "best quarter",
    "two supernets",
    "variance between copies",
    _BEST,
    "of its proposals",
    "different proposals",
)
_DIGITS = {_BEST: 4, "of its proposals": 4, "different proposals": 0}


def _of_policy(truth, searched, space) -> dict[str, np.ndarray]:
    """Number -> [supernets]."""
    reliability, bits = _reliability(truth.seeds["test"]), np.asarray(searched.bits, float)
    good = landscape.best_quarter(truth.test[truth.first])
    best = truth.first[good]
    of_truth = [spearman(row[None], truth.test[None]) for row in bits]
    others = [
        spearman(bits[[i]], np.delete(bits, i, axis=0)) for i in range(len(bits)) if len(bits) > 1
    ]
    proposals = [space.index(rows) for rows in searched.proposals]
    proposed = [rows[np.argmin(row[rows])] for row, rows in zip(bits, proposals, strict=True)]
    values = (
        of_truth,
        [kendall(row[None], truth.test[None]) for row in bits],
        np.array(of_truth) / np.sqrt(reliability),
        [spearman(row[None, best], truth.test[None, best]) for row in bits],
        others,
        [between_copies(row, truth.classes) for row in bits],
        truth.regret(np.argmin(bits, axis=1)),
        truth.regret(np.array(proposed)),
        judging.distinct(proposals),
    )
    return {name: np.asarray(of, float) for name, of in zip(_NUMBERS, values, strict=True)}


def _ceiling(truth) -> dict[str, np.ndarray]:
    """Number -> [seeds], of validation by one seed against test by the others."""
    seen, judged = truth.seeds["validation"], truth.seeds["test"]
    found = {name: [] for name in ("Spearman", "Kendall's tau", "best quarter", _BEST)}
    for seed in range(len(seen)):
        other = np.delete(judged, seed, axis=0).mean(axis=0)
        own, best = seen[[seed]], landscape.best_quarter(other)
        found["Spearman"].append(spearman(own, other[None]))
        found["Kendall's tau"].append(kendall(own, other[None]))
        found["best quarter"].append(spearman(own[:, best], other[None, best]))
        found[_BEST].append(other[np.argmin(own)] - other.min())
    return {name: np.array(values) for name, values in found.items()}


# Searches.


def searches(
    truth: Truth, found: Mapping[str, Queries], bits: np.ndarray, command: str
) -> tuple[Table, str, Figure]:
    """Table, sentence and figure of regrets.

    Args:
      bits: [supernets, n] loss under shared weights that searches saw.
    """
    regrets = {name: _regrets(truth, of, bits) for name, of in found.items()}
    rows, last = [], max(sharing.QUERIES)
    for name, (true, shared) in regrets.items():
        cells = [_over(values[:, q - 1], 4) for values in (true, shared) for q in sharing.QUERIES]
        rows.append(Row([_TITLES[name], *cells]))
    columns = [Column("strategy")] + [
        Column(f"{seen}, {q} queries") for seen in ("true", "shared") for q in sharing.QUERIES
    ]
    true, shared = next(iter(found.values()))
    notes = [
        "Regret on test in bits a character of the best architecture so far by what the search "
        f"saw; means [95 % interval], over {len(true)} seeds that saw the validation loss of cells "
        f"trained alone, and over {len(shared)} supernets of uniformly drawn cells, "
        f"{shared.shape[1]} seeds on each.",
        "Settings of strategies were chosen on NAS-Bench-201.",
    ]
    ends = np.array([[of[:, last - 1].mean() for of in both] for both in regrets.values()])
    (true_least, shared_least), (true_most, shared_most) = ends.min(axis=0), ends.max(axis=0)
    sentence = (
        f"After {last} queries strategies are {true_least:.4f} to {true_most:.4f} bits from the "
        f"best cell with the true reward, {shared_least:.4f} to {shared_most:.4f} with that of "
        "shared weights."
    )
    x = np.arange(min(sharing.QUERIES) // 10, last + 1)
    drawn = [arm for arm in _DRAWN if arm in regrets]
    curves = {}
    for kind, name in enumerate(("true reward", "shared reward")):
        for arm in drawn:
            columns_of = regrets[arm][kind][:, x - 1]
            ends = [statistics.mean_interval(column) for column in columns_of.T]
            curves[f"{_TITLES[arm]}, {name}"] = x, *np.array(ends).T
    figure = figures.bands(curves, x_label="queries", y_label="regret (bits a character)", log=True)
    return Table(SEARCHES, columns, rows, notes, command), sentence, figure


def _regrets(truth, found: Queries, bits) -> tuple[np.ndarray, np.ndarray]:
    """[S, Q] on the truth, [supernets, Q] under shared weights, means over seeds."""
    true = Judge(-truth.validation, -truth.test, BITS).regret(found.truth)
    under = [
        Judge(-seen, -truth.test, BITS).regret(queries).mean(axis=0)
        for seen, queries in zip(bits, found.shared, strict=True)
    ]
    return true, np.array(under)


def _reliability(values) -> float:
    """Of the mean of measurements [S, n] (Spearman-Brown of their mean rank correlation)."""
    return statistics.spearman_brown(repeated(values), len(values))


def _standard(values) -> np.ndarray:
    """[M, n] ranks of rows, whose products are correlations."""
    ranks = rankdata(values, axis=1)
    ranks -= ranks.mean(axis=1, keepdims=True)
    with np.errstate(invalid="ignore"):
        return ranks / np.linalg.norm(ranks, axis=1, keepdims=True)


def _over(values, digits: int = 3) -> str:
    return statistics.mean_interval(values).text(digits) if len(values) > 1 else "-"
