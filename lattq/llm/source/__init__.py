"""What is given: model directories, the layers inside a model, text as windows of tokens."""

from lattq.llm.source.architecture import choose, choose_modules, find_blocks
from lattq.llm.source.checkpoint import (
    load_model,
    load_tokenizer,
    read_config,
    remember_dtypes,
    restore_dtypes,
    source_hash,
)
from lattq.llm.source.matrices import Matrix, matrices, watching
from lattq.llm.source.windows import batches_of, calibrating, longest_window, run, token_windows

__all__ = [
    "Matrix",
    "batches_of",
    "calibrating",
    "choose",
    "choose_modules",
    "find_blocks",
    "load_model",
    "load_tokenizer",
    "longest_window",
    "matrices",
    "read_config",
    "remember_dtypes",
    "restore_dtypes",
    "run",
    "source_hash",
    "token_windows",
    "watching",
]
