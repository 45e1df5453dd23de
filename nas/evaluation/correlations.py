"""How far distances between embeddings follow the similarity of architectures (Adam & Lorraine
2019; Q4 and Q5).

One row per measure: Spearman's rank correlation over all pairs between the L2 distance of two
embeddings and the measure of the two architectures. Similarities should come out negative,
differences positive. Pairs that share an architecture are not independent, so no p-value comes with
these numbers. The paper's own protocol stands beside it.
"""

import itertools
import math

import numpy as np
from scipy.spatial.distance import pdist, squareform
from scipy.stats import pearsonr, spearmanr

from nas.evaluation import edit_distance, overlap
from nas.evaluation.samples import Sample
from nas.spaces import SearchSpace

ACTIVATIONS = "common activations"
CONNECTIONS = "common connections"
TOTAL = "total overlap"
LABELLED_EDGES = "edge and activation (paper's)"
LOOSE_ENDS = "loose ends, |difference|"
PERFORMANCE = "log perplexity, |difference|"
EDIT_DISTANCE = "edit distance"  # in its primary definition
EDIT_DISTANCES = {  # name -> how `pairwise_edit_distance` is asked for it
    EDIT_DISTANCE: {},
    "edit distance, labels ignored": {"labelled": False},
    "edit distance, input and output free": {"forced": False},
    "edit distance, free, labels ignored": {"labelled": False, "forced": False},
}
MEASURES = (
    ACTIVATIONS,
    CONNECTIONS,
    TOTAL,
    LABELLED_EDGES,
    LOOSE_ENDS,
    *EDIT_DISTANCES,
    PERFORMANCE,
)
PERPLEXITY = "perplexity, |difference|"
FIRST_APPROXIMATION = "edit distance, first approximation"
PROTOCOL = (LABELLED_EDGES, FIRST_APPROXIMATION, PERPLEXITY)  # what the paper's code compares
PAPER_PROTOCOL = {
    (LABELLED_EDGES, "Spearman", "L2"): -0.404,
    (PERPLEXITY, "Spearman", "L2"): 0.163,
}  # PG + memory
PAPER = {
    LABELLED_EDGES: -0.404,
    PERFORMANCE: 0.163,
}  # the same beside our reading and our performance
STATISTICS = {"Spearman": spearmanr, "Pearson": pearsonr}
METRICS = {"L2": "euclidean", "cosine": "cosine"}


def edit_distances(space: SearchSpace, decisions: np.ndarray) -> np.ndarray:
    """[D, P] int32 exact edit distances of all pairs, a row a definition of EDIT_DISTANCES."""
    return np.stack(
        [
            squareform(
                edit_distance.pairwise_edit_distance(space, decisions, **definition), checks=False
            )
            for definition in EDIT_DISTANCES.values()
        ]
    )


def measures(space: SearchSpace, sample: Sample) -> dict[str, np.ndarray]:
    """name -> [P] value of every pair, for the names in MEASURES."""
    decisions = sample.decisions
    return {
        ACTIVATIONS: overlap.common_decisions(space, decisions, "activation"),
        CONNECTIONS: overlap.common_decisions(space, decisions, "connection"),
        TOTAL: overlap.common_decisions(space, decisions, "activation", "connection"),
        LABELLED_EDGES: overlap.common_labelled_edges(space, decisions),
        LOOSE_ENDS: overlap.feature_difference(space.loose_ends(decisions).sum(axis=1)),
        **dict(zip(EDIT_DISTANCES, sample.edit_distance, strict=True)),
        PERFORMANCE: overlap.feature_difference(sample.loss),
    }


def distances(embedding: np.ndarray) -> np.ndarray:
    """[P] L2 distance of every pair of embeddings [n, H]."""
    return pdist(np.asarray(embedding, np.float64))


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Spearman's rank correlation, mid-ranks for ties; NaN where one side is constant or not
    finite.
    """
    return _correlation(spearmanr, x, y)


def correlations(values: dict[str, np.ndarray], embedding: np.ndarray) -> dict[str, float]:
    """name -> Spearman's correlation of the measures [P] with the distance of embeddings [n, H]."""
    distance = distances(embedding)
    return {name: spearman(distance, column) for name, column in values.items()}


def paper_protocol(space: SearchSpace, sample: Sample) -> dict[tuple[str, str, str], float]:
    """(measure, statistic, metric) -> correlation as the paper's code appears to compute it.

    The state is read before the last decision is consumed, performance is perplexity, the edit
    distance is networkx's first approximation without labels.
    """
    approximation = edit_distance.first_approximation(space, sample.decisions)
    values = {
        LABELLED_EDGES: overlap.common_labelled_edges(space, sample.decisions),
        FIRST_APPROXIMATION: squareform(approximation, checks=False),
        PERPLEXITY: overlap.feature_difference(np.exp(sample.loss)),
    }
    found = {}
    for (statistic, correlate), (metric, kind) in itertools.product(
        STATISTICS.items(), METRICS.items()
    ):
        distance = pdist(np.float64(sample.before), kind)
        found |= {
            (measure, statistic, metric): _correlation(correlate, distance, values[measure])
            for measure in PROTOCOL
        }
    return found


def _correlation(correlate, x, y):
    if not (np.isfinite(x).all() and np.isfinite(y).all()) or np.ptp(x) == 0 or np.ptp(y) == 0:
        return math.nan
    return float(correlate(x, y).statistic)
