"""Assertions. They raise; none of them returns a comparison that a caller could forget to check."""

from lattq.testing.assertions import assert_close, assert_same, default_rtol

__all__ = ["assert_close", "assert_same", "default_rtol"]
