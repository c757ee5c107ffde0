"""The command `lattq`: quantize a model directory, measure it, look inside, and print the limits.

`lattq --help` lists the commands, `lattq COMMAND --help` their options. PyTorch and `transformers` are imported by the
commands that touch models, matplotlib by those asked for a figure.
"""

from lattq.cli.entry import main

__all__ = ["main"]
