"""The Viterbi algorithm on a shift register with four branch labels; the plain form, an oracle for faster ones."""

import numpy as np
from jaxtyping import Float, Int

__all__ = ["best_path"]


def best_path(
    costs: Float[np.ndarray, "batch length four"],
    labels: Int[np.ndarray, "states two"],
) -> Int[np.ndarray, "batch length"]:
    """Inputs of the cheapest path through the trellis: from state 0 to any state.

    State s with input bit u goes to state (2 s + u) mod states. Of two equally cheap paths into a state the one from
    the lower state is taken.

    Parameters
    ----------
    costs : what each of the four labels costs at each time
    labels : ``labels[s, u]``, 0 to 3, of the branch from state s with input u

    References
    ----------
    Forney, "The Viterbi algorithm", Proc. IEEE 61 (1973).

    Examples
    --------
    >>> labels = np.array([[0, 2], [1, 3], [2, 0], [3, 1]])
    >>> best_path(np.array([[[5.0, 1, 1, 1], [5, 5, 1, 1]]]), labels)
    array([[1, 1]])
    """
    batch, length, _ = costs.shape
    states = len(labels)
    target = np.arange(states)
    low, high, bit = target >> 1, (target >> 1) + states // 2, target & 1
    from_low, from_high = labels[low, bit], labels[high, bit]
    total = np.full((batch, states), np.inf)
    total[:, 0] = 0.0
    chosen = np.empty((length, batch, states), dtype=bool)
    for i in range(length):
        cost = costs[:, i, :]
        one, other = total[:, low] + cost[:, from_low], total[:, high] + cost[:, from_high]
        chosen[i] = other < one
        total = np.minimum(one, other)
    path = np.empty((batch, length), dtype=np.int64)
    state, each = total.argmin(axis=1), np.arange(batch)
    for i in reversed(range(length)):
        path[:, i] = state & 1
        state = (state >> 1) + chosen[i, each, state] * (states // 2)
    return path
