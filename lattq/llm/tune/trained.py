"""Maps, ranges and weights of a model trained block by block, so that plain integers lose as little as they can.

Each block is trained for the inputs that the rounded blocks before it give, towards what the unrounded model makes of
its own. Maps are folded, and where weights or ranges are learned, weights are left rounded as training saw them. Both
ends of each range are among them, so that `rtn(levels, group=group, symmetric=False, fit="range")` finds their codes.
"""

import dataclasses
import functools
import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from lattq._options import among, as_flag, as_float, as_names, normalize
from lattq.affine.checks import check_ratio
from lattq.errors import InvalidInputError, shown
from lattq.llm.measure.hidden_states import BlockStream
from lattq.llm.measure.sensitivity import state_sensitivities
from lattq.llm.source.architecture import find_blocks
from lattq.llm.source.design import ROUNDED, FoldedMap, Kept
from lattq.llm.source.place import Place
from lattq.llm.source.windows import batches_of
from lattq.llm.tune.folding import fold
from lattq.llm.tune.learned import LearnedBlocks, LearnedDiagonal, LearnedMap, LearnedPairs
from lattq.llm.tune.mapped_block import MappedBlock
from lattq.llm.tune.rounded_block import RoundedBlock, Rounding, check_rounding
from lattq.llm.tune.statistics import chosen
from lattq.llm.tune.training import Fit, Schedule, fit
from lattq.progress import Stage

__all__ = ["Trained", "fold_block", "train_blocks"]

Build = Callable[[MappedBlock], RoundedBlock]


@dataclasses.dataclass(frozen=True)
class Trained:
    """Train each block for integers with zero points.

    All linear layers of the blocks are trained and, but with maps alone, left rounded: quantize all of them. Behind
    closed forms, in a `chain`, training begins at theirs, and its certificates are relative to them.

    Parameters
    ----------
    levels, group : of the integers; None for whole rows
    input_levels : integers of the inputs of linear layers, with a step for each token; None leaves them as they are
    weights, ranges : whether weights, and the ranges of groups, are learned beside the maps. Without both, only maps
        are, and the model's function stays: what a recipe with feedback wants
    structures : maps to learn, the first of these that a place lets through
    places : inside blocks, by patterns of their names below the base model
    ratio : ρ < 1, the last radius of the rows of N in D (I + N), which certifies them
    metric : "loss" weighs errors of a block's outputs by how much the predictions mind them (theory 14.2),
        "distortion" all alike
    damping : of that weight, in parts of its mean
    schedule : of training

    Raises
    ------
    InvalidInputError
        for options out of range; when it is called, for models without a table of places, or whose blocks cannot be
        called one by one

    References
    ----------
    Shao et al. 2024, "OmniQuant", arXiv 2308.13137 (blocks, ranges); Ma et al. 2024, "AffineQuant", arXiv 2403.12544
    (maps of heads); Chen et al. 2024, "EfficientQAT", arXiv 2407.11062 (weights).

    Examples
    --------
    >>> from lattq import llm
    >>> from lattq.llm.source import load_model
    >>> model = load_model(llm.embedded_model(), dtype=torch.float32)
    >>> design = Trained(levels=8, places=("*.values",), schedule=Schedule(epochs=1))
    >>> rows = design(model, torch.arange(2, 66).reshape(2, 32), work=Stage("maps"), keep={})
    >>> [row.place for row in rows][:1], rows[0].certificate["row_ratio"] <= 0.9
    (['model.layers.0.values'], True)
    """

    levels: int = 8
    group: int | None = 128
    input_levels: int | None = None
    weights: bool = True
    ranges: bool = True
    structures: tuple[str, ...] = ("heads", "rotary", "diagonal", "positive")
    places: tuple[str, ...] = ("*",)
    ratio: float = 0.9
    metric: str = "loss"
    damping: float = 0.3
    schedule: Schedule = dataclasses.field(default_factory=Schedule)

    def __post_init__(self) -> None:
        normalize(self, as_flag, "weights", "ranges")
        normalize(self, as_float, "ratio", "damping")
        check_ratio(self.ratio)
        check_rounding(self)
        normalize(self, as_names, "structures", "places")
        if not isinstance(self.schedule, Schedule):
            msg = f"`schedule` is {shown(self.schedule)}; pass a Schedule"
            raise InvalidInputError(msg)
        if not among(self.metric, ("loss", "distortion")):
            msg = f'`metric` is {shown(self.metric)}; choose "loss" or "distortion"'
            raise InvalidInputError(msg)
        if not 0 <= self.damping < math.inf:
            msg = f"`damping` is {self.damping}; pass a number of at least 0"
            raise InvalidInputError(msg)
        unknown = [one for one in self.structures if one not in _MAPS]
        if unknown:
            msg = f"`structures` holds {unknown[0]!r}; those that can be learned are {', '.join(_MAPS)}"
            raise InvalidInputError(msg)

    def __call__(
        self, model: Any, windows: Int[Tensor, "windows window"], *, work: Stage, keep: Kept
    ) -> tuple[FoldedMap, ...]:
        """Train every block, then fold."""
        build = functools.partial(self.prepared, among_places=chosen(model, self.places))
        roots = self._roots(model, windows, work) if self.metric == "loss" else None
        trained = list(train_blocks(model, windows, build, self.schedule, work, keep, roots))
        return tuple(row for block, found in trained for row in fold_block(model, block, found, type(self).__name__))

    def _roots(self, model: Any, windows: Int[Tensor, "windows window"], work: Stage) -> list[Tensor]:
        """Factors of the Fisher information of the hidden states behind each block, damped."""
        batches = batches_of(windows)
        with work.stage("measure sensitivities", len(batches)) as stage:
            found = state_sensitivities(
                model, [block for _, block in find_blocks(model)], stage.over(batches), self.schedule.seed
            )
        return [_root(one, self.damping) for one in found]

    def prepared(self, block: MappedBlock, among_places: Collection[str] | None = None) -> RoundedBlock:
        """A block before training, with maps at these of its places, or at all.

        Raises `InvalidInputError` where nothing would be learned.
        """
        maps: dict[str, LearnedMap] = {}
        for name, place in block.places.items():
            structure = next((one for one in self.structures if one in place.structures), None)
            if structure and (among_places is None or place.name in among_places):
                maps[name] = _MAPS[structure](place, self.ratio)
        if not (maps or self.weights or self.ranges):
            msg = (
                f"nothing would be learned: `weights` and `ranges` are False, and none of {', '.join(self.structures)} "
                f"is exact at {', '.join(self.places)}"
            )
            raise InvalidInputError(msg)
        rounding = Rounding(self.levels, self.group, self.input_levels)
        return RoundedBlock(block, maps, rounding, weights=self.weights, ranges=self.ranges)


_MAPS: dict[str, Callable[[Place, float], LearnedMap]] = {
    "heads": lambda place, ratio: LearnedBlocks(place.heads, place.size, ratio),
    "rotary": lambda place, ratio: LearnedPairs(place.heads, place.size, place.pairs),
    "diagonal": lambda place, ratio: LearnedDiagonal(place.heads, place.size),
    "positive": lambda place, ratio: LearnedDiagonal(place.heads, place.size, "positive"),
}


def _root(moment: Float[Tensor, "channels channels"], damping: float) -> Float[Tensor, "channels channels"]:
    """F of F Fᵀ = G + damping times its mean diagonal."""
    eye = torch.eye(len(moment), dtype=moment.dtype)
    root, failed = torch.linalg.cholesky_ex(moment + damping * moment.diagonal().mean().clamp(min=1e-300) * eye)
    if failed:
        msg = f"`damping` is {damping}, which leaves the Fisher information of a block singular; pass more"
        raise InvalidInputError(msg)
    return root.float()


def train_blocks(
    model: Any,
    windows: Int[Tensor, "windows window"],
    build: Build,
    schedule: Schedule,
    work: Stage,
    keep: Kept,
    roots: Sequence[Tensor] | None = None,
) -> Iterator[tuple[RoundedBlock, Fit]]:
    """Train one block after the other; nothing is written into the model.

    Parameters
    ----------
    build : what is to be learned of a block
    roots : of the metric of the outputs of each block, see `fit`
    keep : what is known of blocks that an interrupted run of the same has trained

    Raises
    ------
    InvalidInputError
        for a model whose blocks cannot be called one by one, or in half precision, no windows, and what others kept
    """
    half = next((one.dtype for one in model.parameters() if one.dtype in (torch.float16, torch.bfloat16)), None)
    if half is not None:
        msg = f"the model holds parameters of {half}, too coarse to train through; call `model.float()` first"
        raise InvalidInputError(msg)
    stream = BlockStream(model, [block for _, block in find_blocks(model)], batches_of(windows, schedule.batch))
    hidden: Sequence[Tensor] = list(stream.hidden)
    with work.stage("train blocks", len(stream.blocks)) as stage:
        for index in range(len(stream.blocks)):
            mapped = MappedBlock(model, stream, index)
            block = build(mapped)
            with torch.no_grad():
                wanted = [mapped(mapped.parameters, one, window) for window, one in enumerate(stream.hidden)]
            root = None if roots is None else roots[index]
            train = functools.partial(fit, block, hidden, wanted, schedule, stage, root)
            result = _kept_or_fitted(block, f"block {index}", keep, train)
            with torch.no_grad():
                parameters = block.rounded()
                hidden = [block(one, window, parameters) for window, one in enumerate(hidden)]
            stream.hidden = wanted
            yield block, result


def _kept_or_fitted(block: RoundedBlock, name: str, keep: Kept, train: Callable[[], Fit]) -> Fit:
    """Take the block's state from what was kept, or train it and keep it."""
    if name in keep:
        _require_own(name, keep[name], _arrays(block, Fit(0.0, 0.0, 0.0, 0, 0)))
        found = {key: torch.from_numpy(np.array(one)) for key, one in keep[name].items()}
        numbers = found.pop("fit").tolist()
        block.load_state_dict(found)
        return Fit(*numbers[:3], *(int(one) for one in numbers[3:]))
    result = train()
    keep[name] = _arrays(block, result)
    return result


def _arrays(block: RoundedBlock, result: Fit) -> dict[str, np.ndarray]:
    """What is kept of a block."""
    state = {key: one.numpy() for key, one in block.state_dict().items()}
    return {**state, "fit": np.array(dataclasses.astuple(result), dtype=np.float64)}


def _require_own(name: str, kept: Any, own: Mapping[str, np.ndarray]) -> None:
    """Raise `InvalidInputError` unless the arrays that were kept are those of a block, whatever is in them."""
    forms = [
        {key: f"{np.asarray(one).dtype} {np.shape(one)}" for key, one in arrays.items()}
        for arrays in (dict(kept) if isinstance(kept, Mapping) else {}, own)
    ]
    if forms[0] != forms[1]:
        wrong = next(key for key in {**own, **forms[0]} if forms[0].get(key) != forms[1].get(key))
        there, here = (form.get(wrong, "nothing") for form in forms)
        msg = (
            f"`keep` has {there} as {wrong!r} of {name!r}, where this design has {here}; "
            "pass what a run of the same design kept, or an empty mapping"
        )
        raise InvalidInputError(msg)


@torch.no_grad()
def fold_block(model: Any, block: RoundedBlock, result: Fit, design: str) -> list[FoldedMap]:
    """Fold what a block learned into the model, and write its rounded weights where more than maps was learned.

    Around maps that stay at run time, weights become what map and layer make of the input together.
    """
    weights, rows = block.rounded(), []
    errors = {"plain": result.plain, "start": result.start, "end": result.end}
    for name, one in block.maps.items():
        fold(model, block.block.places[name], one.structure, one.values())
    for name, one in block.learned.items():
        stay = one.values().size if name in block.online else 0
        place = block.block.places[name].name
        condition, bounds = one.condition(), one.certified()
        rows.append(FoldedMap(place, one.structure, condition, design, stay, certificate=bounds, errors=errors))
    for name in block.layers if block.clip or block.moved else ():
        model.get_parameter(f"{name}.weight").copy_(weights[f"{name}.weight"])
        clip = float(block.input_clip[name].sigmoid()) if name in block.input_clip else None
        rows.append(FoldedMap(name, ROUNDED, 1.0, design, errors=errors, clip=clip))
    return rows
