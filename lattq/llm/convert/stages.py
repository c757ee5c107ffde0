"""One conversion: the search for a setting, passes behind the quantized prefix, files."""

import contextlib
import copy
import functools
import math
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import torch
from jaxtyping import Int
from torch import Tensor

from lattq._array import to_host
from lattq.errors import InvalidInputError, RateNotReachedError
from lattq.llm.convert.calibration import Calibration
from lattq.llm.convert.files import expected_bytes, stored_bytes, write_model, writing
from lattq.llm.convert.kept import KeptArrays
from lattq.llm.convert.mapped import changed_tensors, fold_maps, settle
from lattq.llm.convert.passes import Encoder, clean_pass, propagated_pass, rounded_pass
from lattq.llm.convert.plans import Plans, is_fixed_rate
from lattq.llm.convert.rate_control import OneSetting, RateControl, Settings
from lattq.llm.convert.remainder import remainder
from lattq.llm.convert.report import LayerRow, Report
from lattq.llm.convert.rounded import InputSettings, rounding
from lattq.llm.convert.workspace import Workspace
from lattq.llm.distill.divergence import mean_distance
from lattq.llm.run.digests import digests_of_state
from lattq.llm.run.inputs import InputRounding
from lattq.llm.run.plugin import attach, saved_tensors
from lattq.llm.source import checkpoint
from lattq.llm.source.architecture import Choice, choose
from lattq.llm.source.design import ROUNDED, FoldedMap, MapDesign
from lattq.llm.source.matrices import matrices
from lattq.llm.source.windows import batches_of
from lattq.progress import Stage
from lattq.quantized import Quantized
from lattq.rate import RANGES, TOLERANCE, largest_levels, least_is_too_much, most, searched
from lattq.scheme import Scheme

__all__ = ["Conversion"]

STRIDE = 9  # of layers that tell of all: no multiple of how many a block has, so that every kind is among them
PILOTS = 3  # settings at which they do
NEAR = 0.03  # octaves between two steps, after which the rest is left to control
TURNS = 4  # of the last layers, where files miss the rate
MARGIN = 0.0005  # bits: shards have other headers
TRIED = ("loss", "rate")  # allocations of which the better one is kept

Layers = dict[str, tuple[Quantized, LayerRow]]


class _Rated(NamedTuple):
    """A setting and what it costs."""

    rate: float
    value: float | int


class Conversion:
    """The stages of `quantize_model`: search with clean inputs, passes behind the quantized prefix, files."""

    def __init__(
        self,
        source: str | Path,
        model: Any,
        calibration: Calibration,
        workspace: Workspace,
        recipe: Callable[..., Scheme],
        settings: dict[str, Any],
        jobs: int,
        work: Stage,
        design: MapDesign | None = None,
        inputs: InputSettings | None = None,
        judges: Int[Tensor, "windows window"] | None = None,
    ) -> None:
        self.inputs, self.judges, self.told = inputs, judges, {}
        self.source, self.calibration, self.workspace = source, calibration, workspace
        self.recipe, self.settings, self.work = recipe, settings, work
        self.model = model
        self.dtypes = checkpoint.remember_dtypes(self.model)
        self.carried = checkpoint.unread_tensors(source, self.model)
        self.digests = digests_of_state(saved_tensors(self.model))
        self.model.float()  # bfloat16 would add its own noise to the moments
        self.maps = self.fold(design)
        self.layers, self.reasons = self.choice()
        quantized = {layer.key for layer in self.layers.values()}
        self.folded = {} if design is None else self.settle(quantized)
        state = saved_tensors(self.model)
        sizes = {key: tensor.numel() * self.dtypes.get(key, tensor.dtype).itemsize for key, tensor in state.items()}
        new = state.keys() - self.digests.keys()
        self.added = sum(sizes[key] for key in new - quantized)
        sizes |= {key: tensor.nbytes for key, tensor in self.carried.items()}
        self.others = sum(sizes[name] for name in sizes.keys() - quantized)
        self.digests |= digests_of_state(self.folded)
        if inputs is not None:
            inputs.check(self.layers)
        self.weights = {name: to_host(layer.weight).copy() for name, layer in self.layers.items()}
        self.count = sum(w.size for name, w in self.weights.items() if self.layers[name].key not in new)
        if self.count == 0:
            msg = f"only weights that `maps` added would be quantized ({', '.join(self.layers)}); quantize others too"
            raise InvalidInputError(msg)
        at_once = not settings["propagate"] and inputs is None
        self.plans = Plans(recipe, calibration, model, self.layers, self.weights, work, at_once=at_once)
        self.encoder = Encoder(recipe, {}, workspace, jobs, inputs)
        self.encoder.trained = self.trained()

    def trained(self) -> dict[str, FoldedMap]:
        """Layers that `maps` left rounded: all of them are quantized, and nothing moves their weights before."""
        found = {row.place: row for row in self.maps if row.structure == ROUNDED}
        dense = [name for name in found if name not in self.layers]
        if dense:
            msg = (
                f"{found[dense[0]].design} left the weights of {dense[0]} rounded, which stays dense; quantize it too, "
                "or train maps alone (weights=False, ranges=False)"
            )
            raise InvalidInputError(msg)
        moving = [name for name in ("drift", "input_correction") if found and self.settings[name]]
        if moving and (moving != ["input_correction"] or self.inputs is not None):
            msg = f"`maps` left weights rounded, and `{moving[0]}` would move them; pass {moving[0]}=False"
            raise InvalidInputError(msg)
        return found

    @contextlib.contextmanager
    def of_layers(self, name: str, inside: Stage) -> Iterator[None]:
        """A stage in which every layer is quantized."""
        with inside.stage(name, len(self.layers)) as stage:
            self.encoder.report = stage.advance
            yield

    def choice(self) -> Choice:
        """Matrices to quantize, and why the others stay; those that no calibration input reaches stay too."""
        names = self.settings["modules"]
        found = choose(self.model, names, include=self.settings["include"], exclude=self.settings["exclude"])
        used = self.calibration.choose(self.model, found.matrices)
        if used.reasons and (names is not None or not used.matrices):
            name, why = next(iter(used.reasons.items()))
            msg = f"`{name}` cannot be quantized: {why}; leave it out of `modules`"
            raise InvalidInputError(msg)
        return Choice(used.matrices, found.reasons | used.reasons)

    def fold(self, design: MapDesign | None) -> tuple[FoldedMap, ...]:
        """Fold maps into the model, before anything of it is measured."""
        if design is None:
            return ()
        keep = KeptArrays(self.workspace)
        return fold_maps(self.model, self.calibration.windows(), design, self.digests, self.dtypes, self.work, keep)

    def settle(self, quantized: set[str]) -> dict[str, torch.Tensor]:
        """Give the model what its files will hold after maps; copies of the dense tensors that these changed."""
        settle(self.model, self.dtypes, quantized)
        found = changed_tensors(self.model, self.digests, self.dtypes, quantized)
        return {key: tensor.clone() for key, tensor in found.items()}

    def allocate(self, allocation: str) -> None:
        """Let the bits of layers spare equally much of something."""
        self.encoder.metrics = self.plans.metrics(allocation)
        self.encoder.scales = self.plans.scales(allocation, self.settings["rate"])

    def run(self, start: float, max_shard_size: str, beside: list[Path], run: str) -> Report:
        """All stages; the files `beside` the weights come along, and payloads are bound to the name of the run."""
        if self.judges is None:
            value, layers = self.quantized(self.settings["allocation"])
        else:
            value, layers = self.best(self.judges)
        self.restore()
        payloads = {name: one[0].payload for name, one in layers.items()}
        attach(self.model, self.layers, payloads, run, self.carried, self.rounding(layers))
        with self.work.stage("write"):
            return self.write(value, layers, start, max_shard_size, beside, run)

    def quantized(self, allocation: str) -> tuple[float | int, Layers]:
        """All layers, and the setting that they have on the mean."""
        rate, fixed = self.settings["rate"], self.settings[searched(self.recipe)[0]]
        self.allocate(allocation)
        if rate is None:
            return fixed, self.one_pass(OneSetting(fixed))
        if is_fixed_rate(self.recipe):
            return self.largest(rate)
        return self.controlled(rate, allocation)

    def best(self, windows: Int[Tensor, "windows window"]) -> tuple[float | int, Layers]:
        """Whichever of two allocations diverges less from the dense model, on windows that neither has seen.

        They are compared at the same bytes, by 4^(difference of the rates).
        """
        found = {name: self.quantized(name) for name in (TRIED[:1] if is_fixed_rate(self.recipe) else TRIED)}
        scores = {}
        with self.work.stage("judge", len(found)) as judging:
            for name in judging.over(found):
                scores[name] = self.judged(found[name][1], windows)
        sizes = {name: sum(len(one[0].payload) for one in layers.values()) for name, (_, layers) in found.items()}
        least = min(scores, key=lambda name: scores[name] * 4.0 ** (8 * sizes[name] / self.count))
        self.told |= {"chosen": least, "held_out": scores}
        return found[least]

    def judged(self, layers: Layers, windows: Int[Tensor, "windows window"]) -> float:
        """Mean divergence of quantized layers from the dense ones, in nats."""
        rounded = copy.deepcopy(self.model)
        places = matrices(rounded)
        for layer, (quantized, _) in layers.items():
            places[layer].write(torch.from_numpy(quantized.dequantize()))
        inputs = {} if self.inputs is None else {one: self.inputs.stored(*entry) for one, entry in layers.items()}
        with rounding(places, inputs):
            return mean_distance(self.model, rounded, windows)

    def restore(self) -> None:
        """Give the model its types back, and the values of the source, or after maps, where running it changed them."""
        checkpoint.restore_dtypes(self.model, self.dtypes)
        quantized = {layer.key for layer in self.layers.values()}
        dense = {key: one for key, one in saved_tensors(self.model).items() if key not in quantized}
        changed = [key for key, digest in digests_of_state(dense).items() if digest != self.digests[key]]
        if changed:
            own = checkpoint.load_model(self.source).state_dict() | self.folded
            for key in changed:
                dense[key].copy_(own[key])

    def pilot(self, value: float | int, work: Stage, allocation: str = "") -> dict[str, int]:
        """Bytes that some layers, a ninth of all, take at a setting."""
        names = list(self.weights)[STRIDE // 2 :: STRIDE] or list(self.weights)[:1]
        key = f"pilot {allocation} {value!r}"
        noted = self.workspace.noted(key)
        if noted is None:
            weights = {name: self.weights[name] for name in names}
            with work.stage(f"{searched(self.recipe)[0]} {value:.6g}", len(names)) as stage:
                self.encoder.report = stage.advance
                noted = self.encoder.sizes(value, weights, self.plans.moments)
            self.workspace.note(key, noted)
        work.advance(f"{searched(self.recipe)[0]} {value:.6g}: {self._rate_of(noted):.4f} bits")
        return noted

    def _rate_of(self, sizes: Mapping[str, int]) -> float:
        return 8 * sum(sizes.values()) / sum(self.weights[name].size for name in sizes)

    def controlled(self, rate: float | int, allocation: str) -> tuple[float, Layers]:
        """Layers at about one step that fill the files to a rate, and that step."""
        budget, curves = rate * self.count / 8, self.plans.curves(allocation)
        control = RateControl(curves, self.encoder.scales, budget - self.headers, self.workspace, allocation)
        with self.work.stage("search") as work:
            value, last = control.step(), math.inf
            for _ in range(PILOTS):
                for name, size in self.pilot(value, work, allocation).items():
                    control.note(name, value, size)
                value, last = control.step(), value
                if abs(math.log2(value / last)) <= NEAR:
                    break
        tried: list[_Rated] = []
        while True:
            layers = self.one_pass(control, control.turns)
            over = self.over(rate, layers)
            tried.append(_Rated(rate + 8 * over / self.count, control.mean))
            if abs(tried[-1].rate - rate) <= TOLERANCE - MARGIN:
                return control.mean, layers
            if control.turns == TURNS:
                self.missed(rate, min(tried, key=lambda one: abs(one.rate - rate)))
            control.correct(over)

    def largest(self, rate: float | int) -> tuple[int, Layers]:
        """Layers at the most levels or bits whose files do not exceed a rate, and how many these are.

        One more is tried where a sample says that it may fit.
        """
        name, high = searched(self.recipe)[0], most(self.recipe)
        tried: dict[int, Layers] = {}
        with self.work.stage("search") as work:
            sampled = functools.cache(functools.partial(self._sampled, work=work))
            try:
                value = int(largest_levels(rate, sampled, name, high).value)
            except RateNotReachedError:  # by a sample
                value = RANGES[name][0]
            more = sampled(min(value + 1, high)).rate - sampled(value).rate
        while value not in tried:
            tried[value] = self.one_pass(OneSetting(value), len(tried))
            over = 8 * self.over(rate, tried[value]) / self.count
            if over > 0 and value == RANGES[name][0]:
                self.workspace.discard()
                raise least_is_too_much(name, rate, _Rated(rate + over, value))
            if over > 0:
                value -= 1
            elif value < high and over + more <= 0 and value + 1 not in tried:
                value += 1
        return value, tried[value]

    def _sampled(self, value: int, work: Stage) -> _Rated:
        return _Rated(self._rate_of(self.pilot(value, work)) + 8 * self.headers / self.count, value)

    @property
    def headers(self) -> int:
        """Bytes beside the payloads that replace dense weights, to a digit of lengths in a header."""
        size = self.count // (2 * len(self.layers))
        return self.stored(dict.fromkeys(self.layers, size)) - size * len(self.layers)

    def over(self, rate: float | int, layers: Layers) -> float:
        """How many bytes more than a rate allows the files of layers take."""
        sizes = {name: len(one[0].payload) for name, one in layers.items()}
        return self.stored(sizes, self.rounding(layers)) - rate * self.count / 8

    def missed(self, rate: float | int, nearest: _Rated) -> NoReturn:
        """Raise `RateNotReachedError`; nothing is kept."""
        self.workspace.discard()
        msg = (
            f"no setting of the recipe gives {rate} bits per weight within {TOLERANCE}: the nearest found is "
            f"{nearest.rate:.4f} at {nearest.value:.6g}; pass `{searched(self.recipe)[0]}` to take what it gives"
        )
        raise RateNotReachedError(msg, rate=rate)

    def one_pass(self, settings: Settings, turn: int = 0) -> Layers:
        """Quantize every layer."""
        self.encoder.settings = settings
        with self.of_layers(f"correct, {turn}" if turn else "quantize", self.work):
            return self._pass()

    def _pass(self) -> Layers:
        if self.settings["propagate"]:
            drift = self.settings["drift"]
            windows = self.calibration.windows()
            return propagated_pass(self.encoder, self.model, self.layers, self.weights, windows, drift=drift)
        if self.inputs is not None:
            batches = batches_of(self.calibration.windows())
            return rounded_pass(self.encoder, self.model, self.layers, self.weights, batches)
        return clean_pass(self.encoder, self.weights, self.plans.moments)

    def rounding(self, layers: Layers) -> dict[str, InputRounding]:
        """How the inputs of each quantized layer are rounded; nothing if they are not."""
        if self.inputs is None:
            return {}
        return {name: self.inputs.stored(*one).rounding for name, one in layers.items()}

    def stored(self, sizes: dict[str, int], inputs: dict[str, InputRounding] | None = None) -> int:
        """Bytes that payloads of these sizes will take with headers and config, also before ranges are known, and
        dense weights that maps added."""
        if inputs is None:
            inputs = {} if self.inputs is None else dict.fromkeys(self.layers, self.inputs.rounding(0.975))
        modules = {name: layer.text for name, layer in self.layers.items()}
        return expected_bytes(modules, sizes, self.others, inputs) + self.added

    def write(
        self, value: float | int, layers: Layers, start: float, max_shard_size: str, beside: list[Path], run: str
    ) -> Report:
        """Write the model and move it to its place."""
        directory = self.workspace.model_directory()
        write_model(self.model, self.source, beside, directory, max_shard_size)
        stored = stored_bytes(directory)
        files = sum(path.stat().st_size for path in directory.glob("*.safetensors"))
        rows = tuple(row for _, row in layers.values())
        seconds, rate = time.perf_counter() - start, 8 * (stored + self.added) / self.count
        wanted = self.settings["rate"]
        if wanted is not None and not rate - wanted <= TOLERANCE:
            msg = f"shards of {max_shard_size} raise the rate from {wanted} to {rate:.4f} bits; allow larger ones"
            raise RateNotReachedError(msg, rate=wanted)
        dense = remainder(self.model, self.carried, self.reasons, files)
        told = (self.settings | self.told, rows, dense, run, self.maps, self.added)
        report = Report(rate, self.count, stored, files, value, seconds, *told)
        with writing(directory):
            report.save(directory)
        self.workspace.publish()
        return report
