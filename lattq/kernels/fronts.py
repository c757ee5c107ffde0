"""The entries of fronts of a matrix: bands of them with a line to a front, their feedback, and their places.

Fronts are those of `lattq.coding.fronts`: entry (r, j) belongs to the front (r mod height) + j // block. Row r hears
the rows below it in its group of `height` rows, in the same column; column j hears the columns after its block.

A band holds the fronts first ... last - 1: its line q, of a number for each row, has at row r the entry of column
(first - r mod height) block + q, and 0 where there is none. So neighbours of a front lie side by side, and what one
front feeds into another is a product of lines, number by number.
"""

from typing import no_type_check  # functions wrapped for run-time checks would not compile

import numba

__all__ = ["add_block", "bend", "column_lines", "keep", "places", "row_lines", "straighten", "targets"]


@numba.njit(cache=True, nogil=True)
@no_type_check
def column_lines(unit, block, out):
    """The factor of the columns by distance: out[k, c, n] couples column j block + c to the k-th after it.

    Parameters
    ----------
    unit : (columns, columns), upper triangular
    out : (distances, block, columns // block), written; n counts the j down to 0, as fronts go up their rows
    """
    columns, units = len(unit), out.shape[2]
    for j in range(units):
        for c in range(block):
            column = j * block + c
            for k in range(len(out)):
                out[k, c, units - 1 - j] = unit[column, column + k] if column + k < columns else 0.0


@numba.njit(cache=True, nogil=True)
@no_type_check
def row_lines(rows_unit, out):
    """The factor of the rows by distance: out[k, r] couples row r to the k-th after it.

    Parameters
    ----------
    rows_unit : (groups, height, height), lower triangular
    out : (distances, rows), written
    """
    groups, height = rows_unit.shape[:2]
    for g in range(groups):
        for i in range(height):
            for k in range(min(len(out), i + 1)):
                out[k, g * height + i - k] = rows_unit[g, i, i - k]


@numba.njit(cache=True, nogil=True)
@no_type_check
def _rows_of(column, first, height, block, lines):
    """The line of a band that has the first row of a group in this column, and which rows of a group the band has."""
    unit = column // block
    return column - first * block, max(0, first - unit), min(height, first + lines // block - unit)


@numba.njit(cache=True, nogil=True)
@no_type_check
def bend(plain, first, height, block, band):
    """Entries of (columns, rows) into a band."""
    columns, rows = plain.shape
    low, high = max(0, (first - height + 1) * block), min(columns, first * block + len(band))
    for column in range(low, high):
        line, start, stop = _rows_of(column, first, height, block, len(band))
        for top in range(0, rows, height):
            for i in range(start, stop):
                band[line + i * block, top + i] = plain[column, top + i]


@numba.njit(cache=True, nogil=True)
@no_type_check
def straighten(band, first, height, block, plain):
    """Entries of a band into their places in (columns, rows)."""
    columns, rows = plain.shape
    low, high = max(0, (first - height + 1) * block), min(columns, first * block + len(band))
    for column in range(low, high):
        line, start, stop = _rows_of(column, first, height, block, len(band))
        for top in range(0, rows, height):
            for i in range(start, stop):
                plain[column, top + i] = band[line + i * block, top + i]


@numba.njit(cache=True, nogil=True)
@no_type_check
def add_block(some, column, inside, first, height, block, band):
    """Add entries of neighbouring rows and columns to a band, where it has them.

    Parameters
    ----------
    some : (columns, groups, rows of each group), which begin at `column` and at row `inside` of each group
    """
    for j in range(some.shape[0]):
        line, start, stop = _rows_of(column + j, first, height, block, len(band))
        start, stop = max(0, start - inside), min(some.shape[2], stop - inside)
        for g in range(some.shape[1]):
            for i in range(start, stop):
                band[line + (inside + i) * block, g * height + inside + i] += some[j, g, i]


@numba.njit(cache=True, nogil=True)
@no_type_check
def targets(weight, heard, rows_heard, error, summed, unit, rows_unit, rows, first, front, height, block, out):
    """Weights of a front plus what both sides feed into them, one line of `out` for each row, rows in order.

    Parameters
    ----------
    weight : band
    heard, rows_heard : bands of what is fed along columns and along rows from outside of the band; the line of this
        front gets the rest
    error, summed : bands of what is fed; only the fronts after this one are read
    unit, rows_unit : as `column_lines` and `row_lines` give them
    out : (entries of the front, block)
    """
    units, lines = unit.shape[2], len(weight)
    low, high = max(0, front - units + 1), min(height - 1, front)
    groups, size, shift = rows // height, high - low + 1, units - 1 - front + low
    for c in range(block):
        q = (front - first) * block + c
        for k in range(block - c, lines - q):
            _add(heard[q], error[q + k], unit[k, c], groups, height, low, 0, size, shift, 0)
        for k in range(1, (lines - q + block - 1) // block):
            n = max(0, min(size, height - k - low))
            _add(rows_heard[q], summed[q + k * block], rows_unit[k], groups, height, low, k, n, low, height)
        for g in range(groups):
            for i in range(size):
                r = g * height + low + i
                out[g * size + i, c] = weight[q, r] + heard[q, r] + rows_heard[q, r]


@numba.njit(cache=True, nogil=True)
@no_type_check
def keep(weight, heard, rows, units, first, front, height, block, found, codes, error, summed, all_codes):
    """What a front was rounded to, into bands: errors, errors with the feedback of their columns in them, and codes."""
    low, high = max(0, front - units + 1), min(height - 1, front)
    for c in range(block):
        q, place = (front - first) * block + c, 0
        for top in range(0, rows, height):
            for r in range(top + low, top + high + 1):
                own = weight[q, r] - found[place, c]
                error[q, r] = own
                summed[q, r] = own + heard[q, r]
                all_codes[q, r] = codes[place, c]
                place += 1


@numba.njit(cache=True, nogil=True)
@no_type_check
def _add(to, what, times, groups, height, low, ahead, size, start, stride):
    """to += what · times for rows of each group, `what` some rows ahead; slices are what becomes vectors."""
    for g in range(groups):
        first, place = g * height + low, start + g * stride
        one, two = to[first : first + size], what[first + ahead : first + ahead + size]
        three = times[place : place + size]
        for i in range(size):
            one[i] += two[i] * three[i]


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
