"""How unsure several opinions about a pixel are: of the mean opinion, and of the opinions about each other.

`samples` are probabilities (S, C, *pixels) of S members and C classes, of a single member too (S = 1). Values are of
shape (*pixels,), larger is more uncertain; entropies are in nats, ln C at most.
"""

from __future__ import annotations

from typing import Any, Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

Samples: TypeAlias = NDArray[np.floating[Any]]
Values: TypeAlias = NDArray[np.floating[Any]]

_BLOCK: Final = 2**22  # distances that are held at a time


def least_confidence(samples: Samples) -> Values:
    """One minus the mean probability of the likeliest class: 0 … 1 − 1/C.

    Source: Lewis & Gale, A sequential algorithm for training text classifiers, SIGIR 1994.
    """
    confidence: Values = samples.mean(0).max(0)
    return 1 - confidence


def margin(samples: Samples) -> Values:
    """One minus the lead p₁ − p₂ of the likeliest class over the next one, of the mean probabilities: 0 … 1.

    For two classes it ranks pixels as `entropy` and `least_confidence` do; means over tiles differ.

    Source: Scheffer et al., Active hidden Markov models for information extraction, IDA 2001.
    """
    first, *others = samples.mean(0)
    second = np.zeros_like(first)
    for probability in others:
        second = np.maximum(second, np.minimum(first, probability))
        first = np.maximum(first, probability)
    return 1 - (first - second)


def entropy(samples: Samples) -> Values:
    """Entropy of the mean probabilities ("predictive entropy"), H(p̄) = −Σ p̄ ln p̄, in nats: 0 … ln C.

    All there is of uncertainty: noise and overlap of the classes, and what the members do not know.

    Source: Shannon, A mathematical theory of communication, 1948.
    """
    return _entropy(samples.mean(0))


def expected_entropy(samples: Samples) -> Values:
    """Mean entropy of the members, in nats: 0 … `entropy`. What would stay if they agreed, as along boundaries."""
    total = _entropy(samples[0])
    for member in samples[1:]:
        total += _entropy(member)
    return total / len(samples)


def bald(samples: Samples) -> Values:
    """Mutual information of label and member, H(p̄) − mean H(p), in nats: 0 where members agree, ln min(S, C) at most.

    What a label would teach, where members are draws from what the labels so far allow (dropout, bootstrap).

    Source: Houlsby et al., Bayesian active learning for classification and preference learning, 2011.
    """
    # By rounding, members that agree may come out below zero.
    return np.maximum(entropy(samples) - expected_entropy(samples), 0)


def variance(samples: Samples) -> Values:
    """Variance of the probabilities over the members (divided by S), summed over classes: 0 … 1.

    Source: Kendall & Gal, What uncertainties do we need in Bayesian deep learning?, 2017.
    """
    total: Values = samples.var(0).sum(0)
    return total


def disagreement(samples: Samples) -> Values:
    """Mean Kullback-Leibler divergence of the members from their mean, mean Σ p ln(p / p̄), in nats: 0 … ln min(S, C).

    This is their Jensen-Shannon divergence, and in numbers `bald`, summed without a difference of large entropies.
    It needs no member to be a draw from anything; a member may be

    - the network of a fold or of an ensemble,
    - one network's answer in one orientation, turned back (`core.nn.ensemble`), of legal symmetries only,
    - a pass with dropout (`core.nn.mc_dropout`),
    - a head that was fitted on a bootstrap sample of the labelled tiles.

    Source: McCallum & Nigam, Employing EM in pool-based active learning, ICML 1998 (with the divergence from the mean).
    """
    log_mean = _log(samples.mean(0))
    total = np.zeros_like(log_mean[0])
    for member in samples:
        divergence = _log(member)
        divergence -= log_mean
        divergence *= member
        total += divergence.sum(0)
    return np.maximum(total / len(samples), 0)


def out_of_distribution(
    features: NDArray[np.floating[Any]], known: NDArray[np.floating[Any]], k: int
) -> NDArray[np.float32]:
    """Distance to the k-th nearest of what is known, both brought to length 1: 0 … 2.

    Parameters
    ----------
    features
        (n, E).
    known
        (m, E) Features of what the model has learnt from; the farthest counts where m < k, all is nan where m = 0.

    Source: Sun et al., Out-of-distribution detection with deep nearest neighbors, ICML 2022.
    """
    result: NDArray[np.float32] = np.full(len(features), np.nan, np.float32)
    if len(known) == 0:
        return result
    target, nth = unit_length(known), min(k, len(known)) - 1
    step = max(1, _BLOCK // len(known))
    for start in range(0, len(features), step):
        part = slice(start, start + step)
        cosine = unit_length(features[part]) @ target.T
        nearest = -np.partition(-cosine, nth, axis=1)[:, nth]
        result[part] = np.sqrt(np.maximum(2 - 2 * nearest, 0))
    return result


def unit_length(features: NDArray[np.floating[Any]]) -> NDArray[np.float32]:
    """(n, E) → each row divided by its length; a row of zeros stays one."""
    rows = np.asarray(features, np.float32)
    lengths = np.sqrt(np.einsum("ij,ij->i", rows, rows))[:, None]
    unit: NDArray[np.float32] = rows / np.maximum(lengths, np.finfo(np.float32).tiny)
    return unit


def _entropy(probabilities: Values) -> Values:
    """(C, *pixels) → (*pixels,)."""
    terms = _log(probabilities)
    terms *= probabilities
    total: Values = terms.sum(0)
    # A probability of one and a rounding error would give less than nothing.
    return np.maximum(-total, 0)


def _log(probabilities: Values) -> Values:
    """The logarithm, finite at 0 too, where it is multiplied by 0 afterwards."""
    logarithm: Values = np.log(np.maximum(probabilities, np.finfo(probabilities.dtype).tiny))
    return logarithm
