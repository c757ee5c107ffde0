"""What quantizers of single numbers have in common: their form as tables, and shifts of what codes decode to."""

import numpy as np

from lattq.parts.forms import NumberForm

__all__ = ["number_form", "table_shift"]


def number_form(index: np.ndarray, values: np.ndarray, zeros: np.ndarray, steps: np.ndarray, group: int) -> NumberForm:
    """The form of (values[index] - zero) * step, with one zero and step for all, for rows, or for groups of columns.

    Steps that all rows share are factors of the columns.

    >>> number_form(np.array([[0, 1]]), np.array([0.0, 1.0]), np.zeros((1, 1)), np.array([[0.5]]), 2).dense()
    array([[0. , 0.5]])
    """
    rows, columns = index.shape
    group, factors = group if steps.shape[1] > 1 else columns, None
    if len(steps) == 1 and zeros.size == 1:
        factors, steps, group = np.repeat(steps[0], group)[:columns], np.ones((1, 1)), columns
    different, which = np.unique(zeros, return_inverse=True)
    shape = (rows, max(steps.shape[1], zeros.shape[1]))
    which = np.broadcast_to(which.reshape(zeros.shape), shape)
    return NumberForm(index, values[None] - different[:, None], which, np.broadcast_to(steps, shape), group, factors)


def table_shift(codes: np.ndarray, shifts: np.ndarray) -> np.ndarray:
    """Shift of every code by a table for -K ... K; codes beyond it stay where they are.

    >>> table_shift(np.array([-2, 0, 1, 5]), np.array([0.25, 0.0, -0.25]))
    array([ 0.  ,  0.  , -0.25,  0.  ])
    """
    size = len(shifts) // 2
    table = np.concatenate([[0.0], shifts, [0.0]])
    return table[np.clip(codes, -size - 1, size + 1) + size + 1]
