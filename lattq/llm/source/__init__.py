"""What is given: model directories, the layers and places inside a model, text as windows of tokens."""

from lattq.llm.source.architecture import choose, choose_modules, find_blocks
from lattq.llm.source.checkpoint import (
    load_config,
    load_model,
    load_tokenizer,
    read_config,
    remember_dtypes,
    restore_dtypes,
    source_hash,
    unread_tensors,
)
from lattq.llm.source.matrices import Matrix, matrices, watching
from lattq.llm.source.place import Place
from lattq.llm.source.places import places
from lattq.llm.source.weights import dtype_name, read_header, read_tensors, skeleton, weight_files
from lattq.llm.source.windows import batches_of, calibrating, fixed_threads, longest_window, run, token_windows

__all__ = [
    "Matrix",
    "Place",
    "batches_of",
    "calibrating",
    "choose",
    "choose_modules",
    "dtype_name",
    "find_blocks",
    "fixed_threads",
    "load_config",
    "load_model",
    "load_tokenizer",
    "longest_window",
    "matrices",
    "places",
    "read_config",
    "read_header",
    "read_tensors",
    "remember_dtypes",
    "restore_dtypes",
    "run",
    "skeleton",
    "source_hash",
    "token_windows",
    "unread_tensors",
    "watching",
    "weight_files",
]
