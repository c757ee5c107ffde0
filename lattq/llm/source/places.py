"""The places of a model: the table of its architecture with the names, heads and channels that the model has."""

from typing import Any

from torch import nn
from transformers import PreTrainedModel

from lattq.errors import InvalidInputError
from lattq.llm.source.place import Architecture, Place, Site
from lattq.llm.source.place_tables import ARCHITECTURES, HEAD

__all__ = ["places", "submodule", "text_config"]


def places(model: Any, architecture: Architecture | None = None) -> dict[str, Place]:
    """The places of a model, by name, with the full names of its modules.

    Parameters
    ----------
    model : a model of `transformers`, with or without its head
    architecture : a table for it; None for the one of its type in `ARCHITECTURES`

    Raises
    ------
    InvalidInputError : for a type of model without a table, and modules that the table names and the model lacks

    Examples
    --------
    >>> from lattq import llm
    >>> from lattq.llm.source import load_model
    >>> found = places(load_model(llm.embedded_model()))
    >>> len(found), list(found)[:2]
    (17, ['model.layers.0.attention_input', 'model.layers.0.keys'])
    >>> found["model.layers.0.values"].readers
    ('model.layers.0.self_attn.o_proj',)
    """
    config = text_config(model)
    blocks, rows = _table_of(config) if architecture is None else architecture
    prefix = "" if model.base_model is model else f"{model.base_model_prefix}."
    count = len(submodule(model, prefix + blocks))
    paths = [f"{prefix}{blocks}.{index}" for index in range(count)]
    found: dict[str, Place] = {}
    for inside, each in [*(([path], True) for path in paths), (paths, False)]:
        for row in rows:
            name = _full(row.name, inside, prefix)[0]
            if row.name.startswith("*") == each and name not in found and _exists(model, config, row):
                found[name] = _bound(model, config, row, name, inside, prefix)
    return found


def _exists(model: Any, config: Any, row: Place) -> bool:
    """Whether a model has the place: its config says what the row requires, and it has a head if that is a reader."""
    headless = HEAD in row.readers and not hasattr(model, HEAD)
    return not headless and all(getattr(config, key, None) == value for key, value in row.requires)


def text_config(model: Any) -> Any:
    """The part of a model's config that is about text; raises `InvalidInputError` for no model of `transformers`.

    >>> text_config(nn.Linear(2, 3))
    Traceback (most recent call last):
    lattq.errors.InvalidInputError: `model` is a Linear; pass a model of transformers
    """
    if not isinstance(model, PreTrainedModel):
        msg = f"`model` is a {type(model).__name__}; pass a model of transformers"
        raise InvalidInputError(msg)
    return model.config.get_text_config()


def _table_of(config: Any) -> Architecture:
    if config.model_type not in ARCHITECTURES:
        known = ", ".join(sorted(ARCHITECTURES))
        msg = f"no table of places for models of the type {config.model_type!r}; there are {known}. Pass `architecture`"
        raise InvalidInputError(msg)
    return ARCHITECTURES[config.model_type]


def _full(module: str, blocks: list[str], prefix: str) -> list[str]:
    """Full names of what a name of the table stands for."""
    if module.startswith("*."):
        return [block + module[1:] for block in blocks]
    return [module if module == HEAD else prefix + module]


def _bound(model: Any, config: Any, row: Place, name: str, blocks: list[str], prefix: str) -> Place:
    """A row of the table for one place of a model."""
    queries = config.num_attention_heads
    heads = getattr(config, "num_key_value_heads", None) or queries
    stacks = {"qkv": (queries, heads, heads), "halves": (1, 1)}

    def sites(site: Site) -> list[Site]:
        return [
            _site(submodule(model, full), site._replace(module=full), stacks)
            for full in _full(site.module, blocks, prefix)
        ]

    rotary = getattr(model.base_model, "rotary_emb", None)
    first = sites(row.forward[0])[0]
    width = first.rows[1] - first.rows[0] if first.rows else _outputs(model.get_submodule(first.module))
    heads = heads if row.per_head else 1
    pairs = 0 if rotary is None else rotary.inv_freq.numel()
    return row.changed(sites, name=name, heads=heads, size=width // heads, pairs=pairs)


def _site(module: nn.Module, site: Site, stacks: dict[str, tuple[int, ...]]) -> Site:
    """A site with what its module says."""
    rows = None
    if site.part is not None:
        parts, index = stacks[site.part.stack], site.part.index
        unit = _outputs(module) // sum(parts)
        rows = (unit * sum(parts[:index]), unit * sum(parts[: index + 1]))
    return site._replace(rows=rows, transposed=isinstance(module, nn.Embedding))


def _outputs(module: Any) -> int:
    """Channels that a module writes."""
    for name in ("out_features", "embedding_dim"):
        if hasattr(module, name):
            return getattr(module, name)
    return module.normalized_shape[-1] if module.weight is None else module.weight.shape[0]


def submodule(model: Any, name: str) -> Any:
    """A module by its full name; raises `InvalidInputError` where there is none.

    >>> submodule(nn.Sequential(nn.ReLU()), "0")
    ReLU()
    """
    try:
        return model.get_submodule(name)
    except AttributeError as error:
        msg = f"{type(model).__name__} has no module {name}, which a place names; pass a table of its class"
        raise InvalidInputError(msg) from error
