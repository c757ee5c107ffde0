"""What is given: model directories, the layers inside a model, text as windows of tokens."""

from lattq.llm.source.architecture import choose_modules, find_blocks
from lattq.llm.source.checkpoint import (
    load_model,
    load_tokenizer,
    read_config,
    remember_dtypes,
    restore_dtypes,
    source_hash,
)
from lattq.llm.source.windows import batches_of, fixed_threads, run, token_windows

__all__ = [
    "batches_of",
    "choose_modules",
    "find_blocks",
    "fixed_threads",
    "load_model",
    "load_tokenizer",
    "read_config",
    "remember_dtypes",
    "restore_dtypes",
    "run",
    "source_hash",
    "token_windows",
]
