"""How far distances between embeddings follow the similarity of architectures (Adam & Lorraine 2019; Q4 and Q5).

One row per measure: Spearman's rank correlation over all pairs between the L2 distance of two embeddings and the
measure of the two architectures. Similarities should come out negative, differences positive. Pairs that share an
architecture are not independent, so no p-value comes with these numbers.
"""

import math
from typing import NamedTuple

import numpy as np
from scipy.spatial.distance import pdist
from scipy.stats import spearmanr

from nas.evaluation import overlap
from nas.spaces import SearchSpace

ACTIVATIONS = "common activations"
CONNECTIONS = "common connections"
TOTAL = "total overlap"
LABELLED_EDGES = "edge and activation (paper's)"
LOOSE_ENDS = "loose ends, |difference|"
PERFORMANCE = "log perplexity, |difference|"
MEASURES = (ACTIVATIONS, CONNECTIONS, TOTAL, LABELLED_EDGES, LOOSE_ENDS, PERFORMANCE)
PAPER = {LABELLED_EDGES: -0.404, PERFORMANCE: 0.163}  # PG + memory, the controller's own samples


class Sample(NamedTuple):
    """Architectures, as an evaluation sees them."""

    decisions: np.ndarray  # [n, T] int32
    after: np.ndarray  # [n, H] state after the last decision was consumed
    before: np.ndarray  # [n, H] state that produced the last decision, as the paper's code reads it
    log_perplexity: np.ndarray  # [n] nats a token under shared weights


def measures(space: SearchSpace, decisions: np.ndarray, log_perplexity: np.ndarray) -> dict[str, np.ndarray]:
    """name -> [P] value of every pair, for the names in MEASURES.

    Args:
      decisions: [n, T] int32.
      log_perplexity: [n] nats a token.
    """
    return {
        ACTIVATIONS: overlap.common_decisions(space, decisions, "activation"),
        CONNECTIONS: overlap.common_decisions(space, decisions, "connection"),
        TOTAL: overlap.common_decisions(space, decisions, "activation", "connection"),
        LABELLED_EDGES: overlap.common_labelled_edges(space, decisions),
        LOOSE_ENDS: overlap.feature_difference(space.loose_ends(decisions).sum(axis=1)),
        PERFORMANCE: overlap.feature_difference(log_perplexity),
    }


def distances(embedding: np.ndarray) -> np.ndarray:
    """[P] L2 distance of every pair of embeddings [n, H]."""
    return pdist(np.asarray(embedding, np.float64))


def spearman(x: np.ndarray, y: np.ndarray) -> float:
    """Spearman's rank correlation, mid-ranks for ties; NaN where one side is constant or not finite."""
    if not (np.isfinite(x).all() and np.isfinite(y).all()) or np.ptp(x) == 0 or np.ptp(y) == 0:
        return math.nan
    return float(spearmanr(x, y).statistic)


def correlations(
    space: SearchSpace, decisions: np.ndarray, embedding: np.ndarray, log_perplexity: np.ndarray
) -> dict[str, float]:
    """name -> Spearman's correlation with the distance of embeddings [n, H], for the names in MEASURES."""
    distance = distances(embedding)
    return {name: spearman(distance, values) for name, values in measures(space, decisions, log_perplexity).items()}
