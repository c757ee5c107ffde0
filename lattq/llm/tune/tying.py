"""Whether the output layer of a model shares the weight of its embedding."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from lattq.errors import InvalidInputError
from lattq.llm.source.places import text_config

__all__ = ["tie", "untie", "untied"]


def untie(model: Any) -> int:
    """Give the output layer a weight of its own where it shares the embedding's; returns how many weights that adds.

    Rotations of the residual stream and gains of the last norm need it: the two then differ.

    Examples
    --------
    >>> from lattq import llm
    >>> from lattq.llm.source import load_model
    >>> model = load_model(llm.embedded_model())
    >>> untie(model), untie(model), model.config.tie_word_embeddings
    (524288, 0, False)
    """
    text_config(model)
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    if head is None or head.weight is not embedding.weight:
        return 0
    head.weight = nn.Parameter(head.weight.detach().clone(), requires_grad=head.weight.requires_grad)
    _say_tied(model, False)
    return head.weight.numel()


def tie(model: Any) -> None:
    """Undo `untie`: the output layer shares the embedding's weight, which must have the same values.

    Raises
    ------
    InvalidInputError : if they differ

    Examples
    --------
    >>> from lattq import llm
    >>> from lattq.llm.source import load_model
    >>> model = load_model(llm.embedded_model())
    >>> untie(model)
    524288
    >>> tie(model)
    >>> model.config.tie_word_embeddings
    True
    """
    text_config(model)
    head, embedding = model.get_output_embeddings(), model.get_input_embeddings()
    if head is None or not torch.equal(head.weight, embedding.weight):
        msg = f"the output layer of {type(model).__name__} has other weights than its embedding; they cannot be shared"
        raise InvalidInputError(msg)
    head.weight = embedding.weight
    _say_tied(model, True)


@contextlib.contextmanager
def untied(model: Any) -> Iterator[int]:
    """`untie`, and `tie` again if this block of code, which must not write the weight, raises.

    >>> from lattq import llm
    >>> from lattq.llm.source import load_model
    >>> model = load_model(llm.embedded_model())
    >>> with contextlib.suppress(InvalidInputError), untied(model):
    ...     raise InvalidInputError("no map")
    >>> model.config.tie_word_embeddings
    True
    """
    added = untie(model)
    try:
        yield added
    except BaseException:
        if added:
            tie(model)
        raise


def _say_tied(model: Any, tied: bool) -> None:
    """Tell what loads and saves a model whether the output layer has a weight of its own."""
    for config in (text_config(model), model.config):
        config.tie_word_embeddings = tied
    model.all_tied_weights_keys = model.get_expanded_tied_weights_keys(all_submodels=True)
