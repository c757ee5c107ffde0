# %% [markdown]
# # A quantizer of your own
#
# A method is four parts: transform, feedback, quantizer, coder. This tutorial writes the third one: weights become
# −s, 0 or s, with a scale s for each row. The loop, the files, their rate and the checks come with the library.

# %%
import dataclasses
import tempfile

import numpy as np

import lattq as lq
from lattq.coding.schema import Either, Octets, Record, checked
from lattq.errors import InvalidInputError
from lattq.quantizers.steps import half, stored_halves
from lattq.testing import check_coder, check_quantizer, check_transform

# %% [markdown]
# ## The quantizer: a frozen value
#
# `encode` turns numbers into integers, int32 of the same shape, and `decode` turns them back. A file holds what
# `to_state` returns: a list of Python's own numbers, strings, bytes and lists. Here the scales are float16 numbers.
# `stored` rounds them before anything is encoded, so that what is measured is what is stored; `half` refuses what
# float16 would make 0 or infinity.
#
# `from_state` makes the quantizer again, and must not trust what it gets: a schema says how many bytes there are for a
# matrix of `at.rows` × `at.columns`, and `stored_halves` refuses NaN. Both raise `DamagedFileError`.
#
# `BaseQuantizer` answers the rest. The kind names the package that others install to read the file, then the part.


# %%
@lq.register("quantizer", "tutorial/ternary")
@dataclasses.dataclass(frozen=True, eq=False)
class Ternary(lq.quantizers.BaseQuantizer):
    """-s, 0 or s, whichever is nearest; one s for each row, or one for all."""

    scale: np.ndarray

    @property
    def coder(self) -> lq.coding.FixedLength:
        return lq.coding.FixedLength(levels=3, low=-1)

    def encode(self, x: np.ndarray) -> np.ndarray:
        if not np.isfinite(x).all():
            msg = "`x` holds NaN or infinity; clean it before quantizing"
            raise InvalidInputError(msg)
        return (np.sign(x) * (np.abs(x) > self.scale / 2)).astype(np.int32)

    def decode(self, codes: np.ndarray) -> np.ndarray:
        return codes * self.scale

    def stored(self) -> "Ternary":
        return Ternary(half("scale", self.scale, zero=True))

    def to_state(self) -> list:
        return [self.scale.astype("<f2").tobytes()]

    @staticmethod
    def from_state(state: list, shape: tuple[int, int]) -> "Ternary":
        scales = Either(Octets(lambda at: 2 * at.rows), Octets(2))
        (data,) = checked(Record(scale=scales), state, "ternary", rows=shape[0], columns=shape[1])
        return Ternary(stored_halves(data, (-1, 1), zero=True))


# %% [markdown]
# ## The design: a rule that chooses it
#
# The loop calls a design with the entries of a group of columns, once the feedback into the group is complete.
# `entries.power` says what a squared error at each of them costs. The best scale for given codes is the weighted mean
# of the magnitudes that are not coded as 0; the best codes for a given scale are those of `encode`. A few turns.
#
# `BaseDesign` says what the loop may expect, in attributes that a design overrides where it differs:
#
# - `scale_free` is true: scales follow the weights into any unit. Weights then come with a largest magnitude in [1, 2),
#   in proportion to which float16 is good enough, whatever their unit is. A design with numbers of its own in the unit
#   of the weights, such as a fixed step, says `scale_free = False`.
# - `array_generic` is false: it computes with NumPy, so that weights of another library come to it as NumPy arrays. One
#   that works with arrays of any library, quantizers included, says True, and runs where the weights are.
# - `group`, `shrink`: columns per call, and whether columns get gains. Here they are options.


# %%
@dataclasses.dataclass(frozen=True)
class TernaryScales(lq.quantizers.BaseDesign):
    """Scales by alternating least squares."""

    group: int | None = None
    shrink: bool = False
    turns: int = 10

    def __call__(self, entries: lq.quantizers.Entries) -> Ternary:
        size = np.abs(entries.values)
        scale = size.max(axis=1, keepdims=True)
        for _ in range(self.turns):
            mass = entries.power * (size > scale / 2)
            scale = (mass * size).sum(axis=1, keepdims=True) / np.maximum(mass.sum(axis=1, keepdims=True), 1e-300)
        return Ternary(scale)


# %% [markdown]
# ## In the loop
#
# Inputs whose second moment is far from a multiple of the identity, and weights. Feedback makes the same quantizer
# better, at the same rate.

# %%
rng = np.random.default_rng(0)
columns = 64
sigma = 0.9 ** np.abs(np.subtract.outer(np.arange(columns), np.arange(columns)))
weight = rng.normal(size=(256, columns))

plain = lq.Scheme(feedback=lq.feedback.OpenLoop(), quantizer=TernaryScales())
fed_back = lq.Scheme(quantizer=TernaryScales())
layers = {name: lq.quantize(weight, sigma, scheme) for name, scheme in (("open", plain), ("fed back", fed_back))}
for name, layer in layers.items():
    print(f"{name:9} {layer.rate:.3f} bits per weight, distortion {layer.distortion(weight, sigma):.3f}")
assert layers["open"].rate == layers["fed back"].rate
assert layers["fed back"].distortion(weight, sigma) < 0.6 * layers["open"].distortion(weight, sigma)

# %% [markdown]
# In another unit, by a power of two, the codes are the same:

# %%
for unit in (2.0**-30, 2.0**20):
    assert np.array_equal(lq.quantize(unit * weight, sigma, fed_back).codes, layers["fed back"].codes)

# %% [markdown]
# Where the bits go and what each stage does to the distortion is an `Explanation`:

# %%
explained = fed_back.explain(weight, sigma)
print(explained)
assert explained.rate == layers["fed back"].rate

# %% [markdown]
# Groups of columns get a quantizer each. `Ternary` does not say how to join them (`concatenate`), so they are kept side
# by side.

# %%
grouped = lq.quantize(weight, sigma, lq.Scheme(quantizer=TernaryScales(group=16)))
print(grouped)
assert grouped.distortion(weight, sigma) < layers["fed back"].distortion(weight, sigma)

# %% [markdown]
# ## In a file
#
# Nothing more is to be done: the file names the kind, and gives back every bit.

# %%
with tempfile.TemporaryDirectory() as folder:
    lq.save(f"{folder}/layer.lattq", grouped)
    again = lq.load(f"{folder}/layer.lattq")
assert np.array_equal(again.dequantize(), grouped.dequantize())

# %% [markdown]
# ## Checked
#
# The library's own quantizers have to pass a suite of laws: decoding is a fixed point, codes are in their range, no
# neighbouring code is nearer, NaN is refused, a file gives back every bit and a damaged one is refused, joined groups
# and forms decode to the same numbers. The same suite runs on yours, and a broken one is caught. If its class has a
# `concatenate`, pass a second quantizer with other numbers as `beside`.

# %%
check_quantizer(Ternary(np.array([[4.0]])), code_range=(-1, 1))


@lq.register("quantizer", "tutorial/wide")
class Wide(Ternary):
    """Takes 0 for too many."""

    def encode(self, x: np.ndarray) -> np.ndarray:
        return super().encode(0.8 * x)


try:
    check_quantizer(Wide(np.array([[4.0]])), code_range=(-1, 1))
except AssertionError as error:
    print(error)
else:
    raise AssertionError

# %% [markdown]
# Transforms and coders have suites of their own:

# %%
check_transform(lq.transforms.Normalize())
check_coder(lq.coding.FixedLength(3, -1), low=-1, high=1)

# %% [markdown]
# ## In a package
#
# Put the module into a package of the name that the kind begins with (the one that pip knows), and tell where it is in
# its `pyproject.toml`. What stands left of the equals sign may be anything:
#
# ```toml
# [project.entry-points."lattq.parts"]
# tutorial = "the_module"
# ```
#
# Whoever has installed the package can then read the files, without importing it first; without it, a
# `MissingPartError` says `pip install tutorial`, and so does loading a model directory. Transforms
# (`lattq.transforms.BaseTransform`) and coders (`lattq.coding.BaseCoder`) go the same way; transforms get weights of
# any array library, unless the design of the quantizer computes in NumPy. For packed products write `packed_form`, for
# tables of other systems and their refits `table_form`: their forms are in `lattq.parts.forms`.
