"""One conversion: the search for a setting, passes behind the quantized prefix, files."""

import contextlib
import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch

from lattq._array import to_host
from lattq.errors import InvalidInputError, RateNotReachedError
from lattq.llm.convert.calibration import Calibration, Moments, sensitivities_of
from lattq.llm.convert.files import expected_bytes, stored_bytes, write_model, writing
from lattq.llm.convert.kept import KeptArrays
from lattq.llm.convert.mapped import changed_tensors, fold_maps, settle
from lattq.llm.convert.metrics import Metrics
from lattq.llm.convert.passes import Encoder, clean_pass, propagated_pass, rounded_pass
from lattq.llm.convert.remainder import remainder
from lattq.llm.convert.report import LayerRow, Report
from lattq.llm.convert.rounded import InputSettings
from lattq.llm.convert.workspace import Workspace
from lattq.llm.run.digests import digests_of_state
from lattq.llm.run.inputs import InputRounding
from lattq.llm.run.plugin import attach, saved_tensors
from lattq.llm.source import checkpoint
from lattq.llm.source.architecture import Choice, choose
from lattq.llm.source.design import ROUNDED, FoldedMap, MapDesign
from lattq.llm.source.windows import batches_of
from lattq.progress import Stage
from lattq.quantized import Quantized
from lattq.rate import RANGES, TOLERANCE, first_step, grid_step, largest_levels, most, search_step, searched
from lattq.scheme import Scheme

__all__ = ["Conversion", "is_fixed_rate", "scheme_of"]

SEARCHES = 8
PASSES = 4  # corrections of the setting
CORRECTIONS = 2  # of steps that are to give all layers one rate
USUAL_RATE = 3.0  # bits, at which layers are made alike where no rate is given; at high rates any would do

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
    ) -> None:
        self.inputs = inputs
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
        self._clean: Moments | None = None
        self.metrics = self.measured()
        self.encoder = Encoder(recipe, {}, workspace, jobs, inputs)
        self.encoder.metrics = self.metrics
        self.encoder.scales = self.scales()
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

    @property
    def clean(self) -> Moments:
        """Second moments of the unquantized model, measured when first needed."""
        if self._clean is None:
            self._clean = self.calibration.moments(self.model, self.layers, self.work)
        return self._clean

    def measured(self) -> Metrics:
        """Metrics of the layers: where errors of outputs count, in nats, times a common factor for all layers.

        Then one step for all is the same slope everywhere; with the allocation "distortion" every layer has its own
        factor, so that outputs count alike on the mean.
        """
        scheme = scheme_of(self.recipe)
        if not scheme.outputs and not scheme.guides:
            return Metrics()
        weighed = not self.settings["propagate"] and self.inputs is None  # other inputs have plain moments
        self._clean = known = self.calibration.statistics(
            self.model, self.layers, self.work, guides=scheme.guides, weighed=weighed
        )
        units = sensitivities_of(known, self.layers)
        if self.settings["allocation"] == "loss":
            units = dict.fromkeys(units, math.exp(self._mean({name: math.log(g) for name, g in units.items()})))
        return Metrics(known, units, scheme.guides > 0)

    def scales(self) -> dict[str, float]:
        """Factor of the step for each layer, with geometric mean 1 over the weights; 1 where metrics have units."""
        allocation = self.settings["allocation"]
        if is_fixed_rate(self.recipe) or allocation == "distortion":
            return dict.fromkeys(self.layers, 1.0)
        if allocation == "rate":
            steps = self.steps_of_one_rate(self.settings["rate"] or USUAL_RATE)
            logs = {name: math.log(step) for name, step in steps.items()}
        elif self.metrics.statistics is not None:
            return dict.fromkeys(self.layers, 1.0)
        else:
            found = self.calibration.sensitivities(self.model, self.layers, self.work)
            logs = {name: -0.5 * math.log(max(g, 1e-300)) for name, g in found.items()}
        mean = self._mean(logs)
        return {name: math.exp(log - mean) for name, log in logs.items()}

    def steps_of_one_rate(self, rate: float | int) -> dict[str, float]:
        """Steps at which all layers have about this rate: a bit less is an octave, as at high rates."""
        steps = self.first_steps(rate)
        for number in range(1, CORRECTIONS + 1):
            self.encoder.scales = steps
            with self.of_layers(f"make rates alike, {number}", self.work):
                sizes = self.encoder.sizes(1.0, self.weights, self.clean)
            found = {name: 8 * size / self.weights[name].size for name, size in sizes.items()}
            steps = {name: step * 2.0 ** (found[name] - rate) for name, step in steps.items()}
        return steps

    def _mean(self, values: dict[str, float]) -> float:
        """Over the weights."""
        return sum(values[name] * w.size for name, w in self.weights.items()) / self.count

    def run(self, start: float, max_shard_size: str, beside: list[Path], run: str) -> Report:
        """All stages; the files `beside` the weights come along, and payloads are bound to the name of the run."""
        rate, fixed = self.settings["rate"], self.settings[searched(self.recipe)[0]]
        value = fixed if rate is None else self.search(rate)
        with self.of_layers("quantize", self.work):
            layers = self.one_pass(value)
        if rate is not None:
            value, layers = self.correct(rate, value, layers)
        self.restore()
        payloads = {name: one[0].payload for name, one in layers.items()}
        attach(self.model, self.layers, payloads, run, self.carried, self.rounding(layers))
        with self.work.stage("write"):
            return self.write(value, layers, start, max_shard_size, beside, run)

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

    def search(self, rate: float | int) -> float | int:
        """The step or number of levels or bits at which clean inputs give the rate."""

        name, clean = searched(self.recipe)[0], self.clean

        def encode(value: float | int) -> _Rated:
            size = self.workspace.size("clean", value)
            if size is None:
                with self.of_layers(f"{name} {value:.6g}", work):
                    size = self.stored(self.encoder.sizes(value, self.weights, clean))
                self.workspace.remember_size("clean", value, size)
            found = _Rated(8 * size / self.count, value)
            work.advance(f"{name} {value:.6g}: {found.rate:.4f} bits")
            return found

        with self.work.stage("search") as work:
            if is_fixed_rate(self.recipe):
                return largest_levels(rate, encode, name, most(self.recipe)).value
            return search_step(rate, self.first_step(rate), encode, encodes=SEARCHES)[0]

    def first_steps(self, rate: float | int) -> dict[str, float]:
        """Steps at which each layer would have about this rate."""
        sigma = self.clean.sigma
        return {name: first_step(rate, w, self.metrics.of(name, sigma(name))) for name, w in self.weights.items()}

    def first_step(self, rate: float | int) -> float:
        """Common step whose mean rate over the layers is about right: at high rate log steps average."""
        # The factors have geometric mean 1 and drop out.
        return math.exp(self._mean({name: math.log(step) for name, step in self.first_steps(rate).items()}))

    def one_pass(self, value: float | int) -> Layers:
        """Quantize every layer at one setting."""
        if self.settings["propagate"]:
            drift = self.settings["drift"]
            windows = self.calibration.windows()
            return propagated_pass(self.encoder, value, self.model, self.layers, self.weights, windows, drift=drift)
        if self.inputs is not None:
            batches = batches_of(self.calibration.windows())
            return rounded_pass(self.encoder, value, self.model, self.layers, self.weights, batches)
        return clean_pass(self.encoder, value, self.weights, self.clean)

    def rounding(self, layers: Layers) -> dict[str, InputRounding]:
        """How the inputs of each quantized layer are rounded; nothing if they are not."""
        if self.inputs is None:
            return {}
        return {name: self.inputs.stored(*one).rounding for name, one in layers.items()}

    def correct(self, rate: float | int, value: float | int, layers: Layers) -> tuple[float | int, Layers]:
        """Repeat the pass at a corrected setting until the stored bytes meet the rate."""
        name, fixed = searched(self.recipe)[0], is_fixed_rate(self.recipe)
        slope, tried = -1.0, []
        while True:
            sizes = {name: len(one[0].payload) for name, one in layers.items()}
            found = 8 * self.stored(sizes, self.rounding(layers)) / self.count
            if found <= rate if fixed else abs(found - rate) <= TOLERANCE - 0.0005:  # shards have other headers
                return value, layers
            tried.append((value, found))
            if len(tried) > PASSES or (fixed and value == RANGES[name][0]):
                break
            self.workspace.forget(value)
            if len(tried) > 1 and not fixed:
                (old, before), (now, after) = tried[-2:]
                slope = min(max((after - before) / math.log2(now / old), -1.5), -0.2)
            value = value - 1 if fixed else grid_step(value * 2 ** ((rate - found) / slope))
            with self.of_layers(f"correct, {len(tried)}", self.work):
                layers = self.one_pass(value)
        self.workspace.discard()
        value, found = min(tried, key=lambda one: abs(one[1] - rate))
        msg = (
            f"no setting of the recipe gives {rate} bits per weight within {TOLERANCE}: the nearest found is "
            f"{found:.4f} at {value:.6g}; pass `{name}` to take what it gives"
        )
        raise RateNotReachedError(msg, rate=rate)

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
        told = (self.settings, rows, dense, run, self.maps, self.added)
        report = Report(rate, self.count, stored, files, value, seconds, *told)
        with writing(directory):
            report.save(directory)
        self.workspace.publish()
        return report


def scheme_of(recipe: Callable[..., Scheme], value: float | int | None = None) -> Scheme:
    """What a recipe gives at a setting, or at some: the words of a report."""
    name, scheme = searched(recipe)
    if name in RANGES:
        return scheme(RANGES[name][0] if value is None else value)
    return scheme(float(value or 1.0))


def is_fixed_rate(recipe: Callable[..., Scheme]) -> bool:
    """Whether a recipe takes a number of levels or bits, not a step."""
    return searched(recipe)[0] in RANGES
