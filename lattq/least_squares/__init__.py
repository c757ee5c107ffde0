"""Re-estimate what the codes decode to, with the codes frozen: least squares on the true quadratic loss."""

from lattq.least_squares.alternate import GAINS, PARAMETERS, alternate, refit

__all__ = ["GAINS", "PARAMETERS", "alternate", "refit"]
