"""The entries of one front of a matrix: gather their targets, and feed their errors into the fronts that follow soon.

Fronts are those of `lattq.coding.fronts`: entry (r, j) belongs to the front (r mod height) + j // block. Row r hears the
rows below it in its group of `height` rows, in the same column; column j hears the columns after its block.
"""

from typing import no_type_check  # functions wrapped for run-time checks would not compile

import numba

__all__ = ["feed", "targets"]


@numba.njit(cache=True, nogil=True)
@no_type_check
def targets(weight, columns_feedback, rows_feedback, front, height, block, out):
    """Weights of a front plus what both sides feed into them, one line of `out` for each row, rows in order.

    Parameters
    ----------
    weight, columns_feedback : (rows, columns)
    rows_feedback : (columns, rows)
    out : (entries of the front, block)
    """
    rows, columns = weight.shape
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
    weight, columns_feedback, rows_feedback, front, height, block, first_front, unit, rows_unit, found, codes, error,
    summed, all_codes,
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
    rows, columns = weight.shape
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
                for j in range(soon, first):
                    columns_feedback[row, j] += own * unit[column, j]
                for k in range(above, inside):
                    rows_feedback[column, start + k] += whole * rows_unit[group, inside, k]
            place += 1
