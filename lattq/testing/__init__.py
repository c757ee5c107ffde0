"""Checks of parts that others write: the suites that lattq's own parts have to pass, run on yours.

They need hypothesis (`pip install hypothesis`), search for counterexamples, and raise `AssertionError` with the law
that is broken and the smallest example found.
"""

from lattq.testing.checks import check_coder, check_quantizer, check_transform

__all__ = ["check_coder", "check_quantizer", "check_transform"]
