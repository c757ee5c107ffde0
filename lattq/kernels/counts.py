"""Passes over matrices of codes: squares, magnitudes and choices of columns, moments of rows, and sequences."""

from typing import no_type_check  # functions wrapped for run-time checks would not compile

import numba
import numpy as np

__all__ = ["are_front_sequences", "are_sequences", "cheapest", "magnitudes", "row_moments", "squares"]

compiled = numba.njit(cache=True, nogil=True)


@compiled
@no_type_check
def squares(codes, rows, sums):
    """Add squares of some rows to `sums` of columns, in float64: exact below 2^53."""
    for r in rows:
        for c in range(np.uint64(codes.shape[1])):
            code = np.float64(codes[np.uint64(r), c])
            sums[c] += code * code


@compiled
@no_type_check
def row_moments(codes, relative, weight, found):
    """Sums of p x, p x w and (p x)² over the columns of each row, where p are squares of codes; (rows, 3)."""
    for r in range(np.uint64(codes.shape[0])):
        factor, weighted, error = 0.0, 0.0, 0.0
        for c in range(np.uint64(codes.shape[1])):
            code = np.float64(codes[r, c])
            power = code * code * relative[c]
            factor += power
            weighted += power * weight[c]
            error += power * power
        found[r, 0], found[r, 1], found[r, 2] = factor, weighted, error


@compiled
@no_type_check
def magnitudes(codes, rows, shift, most, counts):
    """Count |code| >> shift, or `most` if that is less, for some rows; shifts belong to columns, (columns, sizes)."""
    for r in rows:
        for c in range(np.uint64(codes.shape[1])):
            counts[c, np.uint64(min(abs(np.int64(codes[np.uint64(r), c])) >> shift[c], most))] += 1


@compiled
@no_type_check
def cheapest(bits, differences, centre, lengths, most, found):
    """For each column the first choice with the least bits, with those of its distance from `centre`."""
    for c in range(np.uint64(bits.shape[0])):
        best, place = np.inf, 0
        for k in range(np.uint64(bits.shape[1])):
            total = bits[c, k] + lengths[np.uint64(min(abs(differences[c, k] - centre), most))]
            if total < best:
                best, place = total, k
        found[c] = place


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


@compiled
@no_type_check
def are_front_sequences(codes, height, fronts, cuts, starts, labels):
    """`are_sequences` for fronts from `fronts` to the last, whose cuts, in codes, begin at `starts` among all."""
    rows, columns = codes.shape
    last, wrong = np.uint64(len(labels) - 1), 0
    for front in range(fronts[0], fronts[1]):
        low, high = max(0, front - columns + 1), min(height - 1, front)
        cut, place, state = starts[front - fronts[0]], 0, np.uint64(0)
        for top in range(0, rows, height):
            for inside in range(low, high + 1):
                if place == cuts[cut]:
                    cut, state = cut + 1, np.uint64(0)
                code = np.int64(codes[np.uint64(top + inside), np.uint64(front - inside)])
                label = np.int64(labels[state])
                wrong |= (code ^ label) & 1
                state = (state << np.uint64(1) | np.uint64((code ^ label) >> 1 & 1)) & last
                place += 1
    return wrong == 0
