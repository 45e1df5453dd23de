"""How far distances between embeddings follow the similarity of architectures (Adam & Lorraine
2019; Q4 and Q5).

One row per measure: Spearman's rank correlation over pairs (all, or those within blocks of
architectures) between the L2 distance of two embeddings and the measure of the two architectures.
Similarities should come out negative, differences positive. Pairs that share an architecture are
not independent, so no p-value comes with these numbers. The paper's own protocol is computed too.
"""

import itertools
import math

import numpy as np
from scipy.spatial.distance import pdist, squareform
from scipy.stats import pearsonr, spearmanr

from nas.evaluation import edit_distance, overlap
from nas.evaluation.blocks import within
from nas.evaluation.rounding import is_constant
from nas.evaluation.samples import Sample
from nas.spaces import SearchSpace
from nas.spaces.space import MAX_NODES
from nas.tasks import Task

TOTAL = "total overlap"
EDIT_DISTANCE = "edit distance"  # the primary definition
EDIT_DISTANCES = {  # name -> arguments that define it
    EDIT_DISTANCE: {},
    "edit distance, labels ignored": {"labelled": False},
    "edit distance, input and output free": {"forced": False},
    "edit distance, free, labels ignored": {"labelled": False, "forced": False},
}
FIRST_APPROXIMATION = "edit distance, first approximation"
STATISTICS = {"Spearman": spearmanr, "Pearson": pearsonr}
METRICS = {"L2": "euclidean", "cosine": "cosine"}


def common(kind: str) -> str:
    """Name of the measure that counts the decisions of a kind on which a pair agrees."""
    return f"common {kind}s"


def labelled_edges(space: SearchSpace) -> str:
    """Name of the measure that the paper's code calls common activations."""
    return f"paper's {space.label_kind}s"


def difference_in(name: str) -> str:
    """Name of the measure of how much a pair differs in a number."""
    return f"{name}, |difference|"


def protocol(task: Task) -> tuple[str, str, str]:
    """Names of the measures that the paper's code compares."""
    return labelled_edges(task.space), FIRST_APPROXIMATION, difference_in(task.metric.name)


def edit_distances(
    space: SearchSpace, decisions: np.ndarray, *, block: int | None = None
) -> np.ndarray:
    """[D, P] exact edit distances of pairs within blocks (None: all), one row per definition of
    EDIT_DISTANCES: int32, or nan where the graphs of the space are too large.
    """
    block = block or len(decisions)
    if space.largest_graph > MAX_NODES:
        return np.full((len(EDIT_DISTANCES), len(decisions) * (block - 1) // 2), np.nan)
    return np.stack(
        [
            edit_distance.edit_distances_within(space, decisions, block=block, **definition)
            for definition in EDIT_DISTANCES.values()
        ]
    )


def measures(
    space: SearchSpace, decisions: np.ndarray, *, edits: np.ndarray, block: int | None = None
) -> dict[str, np.ndarray]:
    """name -> [P] value for every pair: common decisions, by kind and in all, common labelled
    edges, and differences in features and edits.

    Args:
      decisions: [n, T].
      edits: [D, P] from `edit_distances`.
      block: architectures of a block; None: all.
    """
    kinds = [kind for kind in dict.fromkeys(space.kinds) if len(space.positions(kind))]
    groups = {common(kind): (kind,) for kind in kinds} | {TOTAL: kinds}
    found = {
        name: overlap.common_decisions(space, decisions, *group, block=block)
        for name, group in groups.items()
    }
    found[labelled_edges(space)] = overlap.common_labelled_edges(space, decisions, block=block)
    for name, values in space.features(decisions).items():
        found[difference_in(name)] = overlap.feature_difference(values, block=block)
    return found | dict(zip(EDIT_DISTANCES, edits, strict=True))


def distances(embedding: np.ndarray, metric: str = "L2", *, block: int | None = None) -> np.ndarray:
    """[P] distances of the pairs of embeddings [n, H] within blocks (None: all), by one of METRICS;
    zero if all embeddings are the same up to rounding.
    """
    rows = np.asarray(embedding, np.float64)
    found = within(lambda rows: pdist(rows, METRICS[metric]), rows, block)
    return np.zeros_like(found) if is_constant(embedding) else found


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Spearman's rank correlation, mid-ranks for ties; NaN where one side is constant or not
    finite.
    """
    return _correlation(spearmanr, x, y)


def correlations(
    values: dict[str, np.ndarray], embedding: np.ndarray, *, block: int | None = None
) -> dict[str, float]:
    """name -> Spearman's correlation of the measures [P] with the distance of embeddings [n, H]."""
    distance = distances(embedding, block=block)
    return {name: spearman(distance, column) for name, column in values.items()}


def paper_protocol(task: Task, sample: Sample) -> dict[tuple[str, str, str], float]:
    """(measure, statistic, metric) -> correlation as the paper's code appears to compute it.

    The state is read before the last decision is consumed, performance is the loss as it is shown,
    the edit distance is networkx's first approximation without labels.
    """
    block = sample.block

    def approximation(decisions):
        found = edit_distance.first_approximation(task.space, decisions)
        return squareform(found, checks=False)

    columns = (
        overlap.common_labelled_edges(task.space, sample.decisions, block=block),
        within(approximation, sample.decisions, block),
        overlap.feature_difference(task.metric.shown(sample.loss), block=block),
    )
    found = {}
    for (statistic, correlate), metric in itertools.product(STATISTICS.items(), METRICS):
        distance = distances(sample.before, metric, block=block)
        for measure, column in zip(protocol(task), columns, strict=True):
            found[measure, statistic, metric] = _correlation(correlate, distance, column)
    return found


def _correlation(correlate, x, y):
    if not (np.isfinite(x).all() and np.isfinite(y).all()) or is_constant(x) or is_constant(y):
        return math.nan
    return float(correlate(x, y).statistic)
