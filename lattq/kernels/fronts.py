"""The entries of one front of a matrix: gather their targets, and feed their errors into the fronts that follow soon.

Fronts are those of `lattq.coding.fronts`: entry (r, j) belongs to the front (r mod height) + j // block. Row r hears
the rows below it in its group of `height` rows, in the same column; column j hears the columns after its block.
"""

from typing import no_type_check  # functions wrapped for run-time checks would not compile

import numba

__all__ = ["feed", "places", "targets"]


@numba.njit(cache=True, nogil=True)
@no_type_check
def targets(weight, columns_feedback, rows_feedback, rows, columns, front, height, block, out):
    """Weights of a front plus what both sides feed into them, one line of `out` for each row, rows in order.

    Parameters
    ----------
    weight, columns_feedback : (rows, columns), lines with any room behind them
    rows_feedback : (columns, rows), likewise
    out : (entries of the front, block)
    """
    units = columns // block
    low, high = max(0, front - units + 1), min(height - 1, front)
    place = 0
    for start in range(0, rows, height):
        for inside in range(low, high + 1):
            row, first = start + inside, (front - inside) * block
            for c in range(block):
                column = first + c
                out[place, c] = weight[row, column] + columns_feedback[row, column] + rows_feedback[column, row]
            place += 1


@numba.njit(cache=True, nogil=True)
@no_type_check
def feed(
    weight, columns_feedback, rows_feedback, rows, columns, front, height, block, first_front, unit, rows_unit, found,
    codes, error, summed, all_codes,
):  # fmt: skip
    """Keep what a front was rounded to, and feed its errors into the fronts down to `first_front`.

    Parameters
    ----------
    unit : (columns, columns), unit lower triangular
    rows_unit : (groups, height, height), unit lower triangular
    found, codes : (entries of the front, block), as `out` of `targets`
    error, all_codes : (rows, columns), written
    summed : (columns, rows), written: the errors with the feedback of their columns in them
    """
    units = columns // block
    low, high = max(0, front - units + 1), min(height - 1, front)
    place = 0
    for start in range(0, rows, height):
        group = start // height
        for inside in range(low, high + 1):
            row, first = start + inside, (front - inside) * block
            soon = max(0, first_front - inside) * block
            above = max(0, first_front - (front - inside))
            for c in range(block):
                column = first + c
                own = weight[row, column] - found[place, c]
                whole = own + columns_feedback[row, column]
                error[row, column] = own
                summed[column, row] = whole
                all_codes[row, column] = codes[place, c]
                _add(columns_feedback[row, soon:first], unit[column, soon:first], own)
                _add(
                    rows_feedback[column, start + above : start + inside], rows_unit[group, inside, above:inside], whole
                )
            place += 1


@numba.njit(cache=True, nogil=True)
@no_type_check
def _add(to, what, times):
    """to += times · what; on slices, which become vectors."""
    for k in range(len(what)):
        to[k] += times * what[k]


@numba.njit(cache=True, nogil=True)
@no_type_check
def places(rows, columns, height, first, last, out):
    """Flat places, row by row, of all entries of the fronts first ... last - 1, one front after the other."""
    i = 0
    for front in range(first, last):
        low, high = max(0, front - columns + 1), min(height - 1, front)
        for top in range(0, rows, height):
            for r in range(low, high + 1):
                out[i] = (top + r) * columns + front - r
                i += 1
