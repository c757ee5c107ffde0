"""The weight to aim for when the layers before have changed the inputs."""

import numpy as np
from jaxtyping import Float
from scipy.linalg import solve_triangular

from lattq._array import Array, host_reals
from lattq.errors import InvalidInputError
from lattq.linalg.checks import check_second_moment
from lattq.linalg.ldl import ldl

__all__ = ["effective_weight"]


def effective_weight(
    weight: Float[Array, "rows columns"],
    cross: Float[Array, "columns columns"],
    sigma_hat: Float[Array, "columns columns"],
    residual: Float[Array, "rows columns"] | None = None,
    *,
    damping: float = 0.0,
) -> Float[np.ndarray, "rows columns"]:
    """Return the weight on drifted inputs x̂ that comes closest to W x + r - r̂, in float64 on the host.

    It is ``(W E[x x̂ᵀ] + E[(r - r̂) x̂ᵀ]) E[x̂ x̂ᵀ]⁻¹``, the linear estimate of least mean squared error. For every Ŵ

        E‖W x + r - r̂ - Ŵ x̂‖² = tr((W* - Ŵ) E[x̂ x̂ᵀ] (W* - Ŵ)ᵀ) + what no weight can remove,

    so quantizing W* with the second moment of x̂ is the whole problem. Directions without variance, with
    pivots up to ``n * eps * max(diagonal)`` as in `ldl`, get no weight.

    Parameters
    ----------
    cross : E[x x̂ᵀ], from `SecondMoment(columns, columns)`
    sigma_hat : E[x̂ x̂ᵀ]
    residual : E[(r - r̂) x̂ᵀ], the drift of what the layer's output is added to
    damping : adds this fraction of the mean diagonal of `sigma_hat`, times the squared distance of the result
        to `weight`, to the squared error

    Raises
    ------
    InvalidInputError : if shapes disagree, a value is NaN or infinite, or `sigma_hat` is not symmetric
    NotPositiveSemidefiniteError : if `sigma_hat` has a negative pivot

    References
    ----------
    Lifar et al., "WaterSIC", arXiv 2603.04956, eq. 18.

    Examples
    --------
    Inputs that shrank by half need twice the weight.

    >>> effective_weight(np.ones((1, 2)), 0.5 * np.eye(2), 0.25 * np.eye(2))
    array([[2., 2.]])
    """
    wide = _host("weight", weight)
    sigma_hat = check_second_moment(sigma_hat, wide.shape[1])
    mixed = _host("cross", cross, sigma_hat.shape)
    ridge = damping * float(np.mean(np.diag(sigma_hat)))
    target = wide @ mixed + ridge * wide
    if residual is not None:
        target += _host("residual", residual, wide.shape)
    factor = ldl(sigma_hat, order="pivoted", damping=damping)
    rank = int(np.count_nonzero(factor.pivots))
    root = factor.unit[:, :rank] * np.sqrt(factor.pivots[:rank])
    result = np.empty_like(target)
    result[:, factor.order] = _solve(root, target[:, factor.order].T).T
    return result


def _host(name: str, x: Array, shape: tuple[int, ...] | None = None) -> np.ndarray:
    host = host_reals(name, x)
    if shape is not None and host.shape != shape:
        msg = f"`{name}` has shape {host.shape}; the other arguments need {shape}"
        raise InvalidInputError(msg)
    return host


def _solve(root: np.ndarray, right: np.ndarray) -> np.ndarray:
    """Return the least-norm least-squares solution of ``root @ root.T @ x = right`` for a root of full column rank."""
    if root.shape[0] == root.shape[1]:  # lower triangular
        return solve_triangular(root, solve_triangular(root, right, lower=True), lower=True, trans=1)
    basis, upper = np.linalg.qr(root)
    inner = solve_triangular(upper, basis.T @ right)
    return basis @ solve_triangular(upper, inner, trans=1)
