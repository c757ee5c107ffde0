"""Re-estimate what the codes decode to, with the codes frozen: least squares on the true quadratic loss."""

from lattq.least_squares.alternate import refit

__all__ = ["refit"]
