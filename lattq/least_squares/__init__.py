"""Re-estimate what the codes decode to, with the codes frozen: least squares on the true quadratic loss."""

from lattq.least_squares.alternate import GAINS, PARAMETERS, alternate, refit
from lattq.least_squares.gains import fit_rows

__all__ = ["GAINS", "PARAMETERS", "alternate", "fit_rows", "refit"]
