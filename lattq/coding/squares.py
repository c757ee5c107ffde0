"""Scale classes of rows and columns for codes whose bits are a square plus a partition function.

With P(x) = exp(-‖x‖² / 2s²) / Z(s) the bits of all codes of one scale are ‖x‖² / (2 s² ln 2) + log2 Z, so the mean
squares of a column decide its class.
"""

import math

import numpy as np

from lattq.coding.column_squares import column_squares
from lattq.coding.cosets import MOST, scale
from lattq.coding.integers import cheapest, encode_integers
from lattq.coding.tables import scale_class
from lattq.coding.twoway import NO_NOISE, SAMPLE_COLUMNS, Prior, TwoWayModel, row_classes

__all__ = ["fit_squares", "square_classes"]

NOISE = (NO_NOISE, *(int(x) for x in scale_class(np.array([0.5, 1.0, 2.0]))))  # cells are one to three codes wide


def square_classes(model: TwoWayModel, columns: slice | np.ndarray = slice(None)) -> np.ndarray:
    """Class of every code in these columns, at most the largest that there is."""
    return np.minimum(model.classes(columns), MOST).astype(np.int16)


def fit_squares(
    codes: np.ndarray, kinds: np.ndarray, partitions: np.ndarray, rows: np.ndarray | None = None, prior: Prior = 0
) -> TwoWayModel:
    """Model with the fewest bits, its own among them: classes of columns by exact bits, of rows from moments.

    Rows and columns have their own classes only where these pay.

    Parameters
    ----------
    codes : (rows, columns)
    kinds : which partition function a code has; shape of the codes, or (rows, 1)
    partitions : log2 Z per code, (kinds, MOST + 1)
    prior : of the column classes, as in `TwoWay`
    rows : classes of the rows, if they are known already
    """
    equal = np.zeros(codes.shape[0], dtype=np.int64)
    if rows is not None:
        fits = [_fit(codes, kinds, partitions, rows, noise, prior) for noise in NOISE]
        return min(fits, key=lambda fit: fit[1])[0]
    plain = _fit(codes, kinds, partitions, equal, NO_NOISE, prior)
    some = slice(None, None, -(-codes.shape[1] // SAMPLE_COLUMNS))
    part, columns = np.ascontiguousarray(codes[:, some]), plain[0].columns
    share = np.broadcast_to(kinds, codes.shape)[:, some]
    of_part = prior if isinstance(prior, int) else prior[some]
    tried = [_with_rows(part, share, partitions, columns[some], noise, of_part) for noise in NOISE]
    noise = NOISE[int(np.argmin([bits for _, bits in tried]))]
    return min(plain, _with_rows(codes, kinds, partitions, columns, noise, prior), key=lambda fit: fit[1])[0]


def _with_rows(
    codes: np.ndarray, kinds: np.ndarray, partitions: np.ndarray, columns: np.ndarray, noise: int, prior: Prior
) -> tuple[TwoWayModel, float]:
    """Row classes from moments, then column classes by exact bits; with what the row classes cost.

    Rows that all have class 0 are equal ones, which are tried in any case.
    """
    rows = row_classes(codes, columns, noise)
    if not rows.any():
        return TwoWayModel(rows, columns, noise), math.inf
    model, bits = _fit(codes, kinds, partitions, rows, noise, prior)
    return model, bits + 8 * len(encode_integers(rows)[2])


def _fit(
    codes: np.ndarray, kinds: np.ndarray, partitions: np.ndarray, rows: np.ndarray, noise: int, prior: Prior
) -> tuple[TwoWayModel, float]:
    """Best classes of the columns given those of the rows, and the bits of all codes and of the columns' classes."""
    k = np.arange(MOST + 1)
    per_square = 1 / (2 * np.square(scale(k)) * math.log(2))
    bits = np.zeros((codes.shape[1], MOST + 1))
    nonzero = np.zeros(codes.shape[1], dtype=bool)
    for q in np.unique(rows):
        members = np.flatnonzero(rows == q)
        shifted = square_classes(TwoWayModel(np.array([q]), k, noise))[0]
        squares = column_squares(codes, members)
        bits += squares[:, None] * per_square[shifted]
        nonzero |= squares > 0
        those = kinds if len(members) == len(rows) else kinds[members]
        for kind, share in enumerate(_counts(those, len(members), codes.shape[1], len(partitions))):
            with np.errstate(invalid="ignore"):
                bits += np.where(share[:, None] > 0, share[:, None] * partitions[kind][shifted], 0.0)
    bits[:, 0] = np.where(nonzero, np.inf, 0.0)
    chosen, total = cheapest(bits, np.broadcast_to(k, bits.shape), prior)
    return TwoWayModel(rows, chosen, noise), total


def _counts(kinds: np.ndarray, rows: int, columns: int, number: int) -> list[np.ndarray]:
    """How many codes of each kind a column has; the first kind is what the others leave."""
    found = [column_squares((kinds == k).view(np.int8)).astype(np.int64) for k in range(1, number)]
    others = [np.broadcast_to(one, columns) for one in found]
    if kinds.shape[0] != rows:
        others = [rows * share for share in others]
    return [rows - sum(others, np.zeros(columns, dtype=np.int64)), *others]
