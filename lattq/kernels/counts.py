"""Passes over matrices of codes: how often magnitudes occur in columns, and whether columns are trellis sequences."""

from typing import no_type_check  # functions wrapped for run-time checks would not compile

import numba
import numpy as np

__all__ = ["are_sequences", "magnitudes"]

compiled = numba.njit(cache=True, nogil=True)


@compiled
@no_type_check
def magnitudes(codes, rows, shift, most, counts):
    """Count |code| >> shift, or `most` if that is less, for some rows; shifts belong to columns, (columns, sizes)."""
    for r in rows:
        for c in range(np.uint64(codes.shape[1])):
            counts[c, np.uint64(min(abs(np.int64(codes[np.uint64(r), c])) >> shift[c], most))] += 1


@compiled
@no_type_check
def are_sequences(codes, cuts, labels):
    """Whether columns, between rows `cuts`, have the parities that the codes before them leave.

    `labels` are residues mod 4 on the branch with input 0 from each state.
    """
    last, wrong = np.uint64(len(labels) - 1), 0
    states = np.zeros(codes.shape[1], dtype=np.uint64)
    for cut in range(len(cuts) - 1):
        states[:] = 0
        for r in range(np.uint64(cuts[cut]), np.uint64(cuts[cut + 1])):
            for c in range(np.uint64(codes.shape[1])):
                code, label = np.int64(codes[r, c]), np.int64(labels[states[c]])
                wrong |= (code ^ label) & 1
                states[c] = (states[c] << np.uint64(1) | np.uint64((code ^ label) >> 1 & 1)) & last
    return wrong == 0
