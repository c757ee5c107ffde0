"""Slow and obviously right implementations, written from the papers and sharing no code with lattq."""
