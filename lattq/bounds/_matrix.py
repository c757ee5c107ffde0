"""Spectrum and determinant of a second moment, with the checks a lower bound needs."""

import numpy as np

from lattq._array import Array, epsilon, host_reals
from lattq.errors import InvalidInputError, NotPositiveSemidefiniteError


def rounding(matrix: np.ndarray, eps: float) -> float:
    """Return what rounding of the entries, in the precision they came in, may do to an eigenvalue."""
    return matrix.shape[0] * eps * float(np.abs(matrix).max())


def symmetric(name: str, matrix: Array) -> tuple[np.ndarray, float]:
    """Return `matrix` as host float64, and the `rounding` of its eigenvalues; raise unless finite and symmetric."""
    host = host_reals(name, matrix)
    if host.ndim != 2 or host.shape[0] != host.shape[1] or host.size == 0:
        msg = f"`{name}` has shape {host.shape}; pass a square matrix"
        raise InvalidInputError(msg)
    tolerance = rounding(host, epsilon(matrix))
    difference = np.abs(host - host.T)
    if difference.max() > tolerance:
        i, j = (int(k) for k in np.unravel_index(difference.argmax(), difference.shape))
        msg = f"`{name}` holds {host[i, j]} at ({i}, {j}) but {host[j, i]} at ({j}, {i}); pass (M + M.T) / 2"
        raise InvalidInputError(msg)
    return host, tolerance


def eigenvalues(name: str, matrix: np.ndarray, tolerance: float) -> np.ndarray:
    """Return the eigenvalues, ascending, none negative; those within float64 rounding of zero are zero.

    Zero is the safe side for a lower bound: less variance never needs more bits.
    """
    spectrum = np.linalg.eigvalsh(matrix)
    noise = matrix.shape[0] * np.finfo(np.float64).eps * spectrum[-1]
    reject_negative(name, matrix, float(spectrum[0]), max(tolerance, float(noise)))
    return np.where(spectrum > noise, spectrum, 0.0)


def reject_negative(name: str, matrix: np.ndarray, smallest: float, tolerance: float) -> None:
    """Raise if the smallest eigenvalue is negative beyond rounding."""
    if smallest < -tolerance:
        index = int(np.abs(np.linalg.eigh(matrix)[1][:, 0]).argmax())
        msg = (
            f"`{name}` has the eigenvalue {smallest:.6g}, its eigenvector largest in column {index}, and rounding "
            f"explains {-tolerance:.2g} at most; a second moment has none below zero"
        )
        raise NotPositiveSemidefiniteError(msg, index=index, pivot=smallest)


def square_root(name: str, matrix: np.ndarray, tolerance: float) -> np.ndarray:
    """Return F with F Fᵀ = `matrix`, which may be singular."""
    spectrum, vectors = np.linalg.eigh(matrix)
    reject_negative(name, matrix, float(spectrum[0]), tolerance)
    return vectors * np.sqrt(np.maximum(spectrum, 0.0))


def log_determinant(name: str, matrix: np.ndarray, tolerance: float) -> float:
    """Return ln det of `matrix`; minus infinity if it is singular to float64 rounding."""
    try:
        factor = np.linalg.cholesky(matrix)  # half the work of LU, and it sees an indefinite matrix
    except np.linalg.LinAlgError:
        spectrum = eigenvalues(name, matrix, tolerance)
        return float(np.log(spectrum).sum()) if spectrum[0] > 0.0 else -np.inf
    return 2.0 * float(np.log(np.diagonal(factor)).sum())
