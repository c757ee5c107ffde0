"""The contracts themselves: the smallest instances pass, and each law catches the fault it is there for."""

import dataclasses
import zlib

import array_api_compat.numpy as numpy_namespace
import numpy as np
import pytest
from array_api_compat import array_namespace

from lattq._array import require_finite, to_host
from lattq.coding import BaseCoder, FixedLength
from lattq.coding.schema import SCALE, Integer, Octets, Real, Record, checked
from lattq.errors import DamagedFileError, InvalidInputError
from lattq.parts import register
from lattq.parts.forms import NumberForm, TableForm
from lattq.quantizers import AbsMax, BaseQuantizer
from lattq.quantizers.steps import stored_halves
from lattq.testing import check_quantizer, check_transform
from lattq.transforms import BaseTransform, Equalize, Hadamard, Normalize, then
from tests.contracts import CoderContract, QuantizerContract, TransformContract, stream_bits


@register("quantizer", "tests/rounding")
@dataclasses.dataclass(frozen=True)
class Rounding(BaseQuantizer):
    """Multiples of a step; `offset` 0.5 makes it a wrong nearest-point search."""

    step: float = 0.5
    offset: float = 0.0
    drift: float = 0.0

    def encode(self, x):
        require_finite("x", x)
        xp = array_namespace(x)
        return xp.astype(xp.round(x / self.step + self.offset), xp.int32)

    def decode(self, codes):
        xp = array_namespace(codes)
        return xp.astype(codes, xp.float64) * self.step + self.drift

    def to_state(self):
        return [self.step, self.offset, self.drift]

    @staticmethod
    def from_state(state, shape):
        return Rounding(*checked(Record(step=SCALE, offset=Real(0.0, 1.0), drift=Real(-9.0, 9.0)), state))


class TestRounding(QuantizerContract):
    columns = 2

    def quantizer(self, xp):
        return Rounding()


class Wrong(QuantizerContract):
    """Not collected: used by the negative controls."""

    def __init__(self, instance):
        self.instance = instance

    def quantizer(self, xp):
        return self.instance


def test_a_biased_search_is_caught():
    with pytest.raises(AssertionError, match="is nearer"):
        Wrong(Rounding(offset=0.3)).test_no_neighbouring_code_is_nearer()


def test_a_drifting_decoder_is_caught():
    with pytest.raises(AssertionError):
        Wrong(Rounding(drift=0.4)).test_reconstructions_are_fixed_points()


def test_codes_out_of_range_are_caught():
    contract = Wrong(Rounding())
    contract.code_range = (-1, 1)
    with pytest.raises(AssertionError, match="the range"):
        contract.test_codes_are_integers_in_range()


def test_float_codes_are_caught():
    class Floating(Rounding):
        def encode(self, x):
            return np.round(x / self.step)

    with pytest.raises(AssertionError, match="dtype"):
        Wrong(Floating()).test_codes_are_integers_in_range()


def test_a_silent_nan_is_caught():
    class Silent(Rounding):
        def encode(self, x):
            return np.nan_to_num(np.round(x / self.step)).astype(np.int32)

    with pytest.raises(AssertionError, match="NaN must be refused"):
        Wrong(Silent()).test_nan_is_refused(np)


def test_a_host_only_quantizer_is_caught():
    class HostOnly(Rounding):
        def decode(self, codes):
            return to_host(codes) * self.step

    import array_api_strict

    with pytest.raises(AssertionError, match="libraries differ"):
        Wrong(HostOnly()).test_every_array_library_gives_the_same_codes(array_api_strict)


@register("transform", "tests/scaling")
@dataclasses.dataclass(frozen=True)
class Scaling(BaseTransform):
    """The diagonal transform T = diag(scale); `power` 1 scales the second moment wrongly."""

    scale: np.ndarray
    power: int = 2

    def forward(self, weight):
        xp = array_namespace(weight)
        return weight / xp.asarray(self.scale, dtype=weight.dtype)

    def inverse(self, weight):
        xp = array_namespace(weight)
        return weight * xp.asarray(self.scale, dtype=weight.dtype)

    def congruence(self, sigma):
        return self.scale[:, None] * sigma * self.scale ** (self.power - 1)

    def to_state(self):
        return [self.scale.tobytes(), self.power]

    @staticmethod
    def from_state(state, columns):
        scale, power = checked(Record(scale=Octets(8 * columns), power=Integer(1, 2)), state)
        if not (np.frombuffer(scale) > 0).all():
            msg = "no scale"
            raise DamagedFileError(msg)
        return Scaling(np.frombuffer(scale), power)


class TestScaling(TransformContract):
    def transform(self, sigma, seed):
        return Scaling(np.random.default_rng(seed).uniform(0.1, 10.0, len(sigma)))


def test_a_wrong_congruence_is_caught():
    class Half(TestScaling):
        def transform(self, sigma, seed):
            return dataclasses.replace(super().transform(sigma, seed), power=1)

    with pytest.raises(AssertionError):
        Half().test_distortion_is_invariant()


@register("coder", "tests/plain")
@dataclasses.dataclass(frozen=True)
class Plain(BaseCoder):
    """Four bytes a code; `width` 2 drops the upper half."""

    width: int = 4

    def encode(self, codes, prior=0):
        return codes.astype(f"<i{self.width}").tobytes()

    def decode(self, blob, shape, prior=0):
        return np.frombuffer(blob, dtype=f"<i{self.width}").astype(np.int32).reshape(shape)


@register("coder", "tests/unguarded")
@dataclasses.dataclass(frozen=True)
class Unguarded(Plain):
    def encode(self, codes, prior=0):
        return zlib.compress(super().encode(codes))

    def decode(self, blob, shape, prior=0):
        return super().decode(zlib.decompress(blob), shape)


class TestPlain(CoderContract):
    def coder(self):
        return Plain()

    def ideal_bits(self, codes):
        return 32.0 * codes.size

    def overhead_bits(self, codes):
        return 0.0


def test_a_reconstruction_outside_the_range_is_caught():
    class Narrow(Rounding):
        def overload(self, x):
            return int(np.sum(np.abs(x) > 1))

    with pytest.raises(AssertionError):
        Wrong(Narrow()).test_no_reconstruction_is_overloaded()


def test_stream_sizes_count_every_part():
    assert stream_bits(b"abc") == 24
    assert stream_bits([b"abc", 300, [-1]]) == (8 + 24) + (8 + 16) + (8 + (8 + 8))
    assert stream_bits(0.5) == 64


def test_lost_high_bits_are_caught():
    class Short(TestPlain):
        def coder(self):
            return Plain(width=2)

    with pytest.raises(AssertionError):
        Short().test_extreme_values_survive()


def test_an_understated_overhead_is_caught():
    class Boast(TestPlain):
        def ideal_bits(self, codes):
            return 31.0 * codes.size

    with pytest.raises(AssertionError):
        Boast().test_size_is_the_ideal_plus_the_stated_overhead()


def test_bits_hidden_outside_the_stream_are_caught():
    """A coder that keeps the codes on its own side decodes perfectly and writes almost nothing."""
    hidden = {}

    class Hiding(BaseCoder):
        def encode(self, codes, prior=0):
            hidden["codes"] = codes
            return b"x"

        def decode(self, blob, shape, prior=0):
            return hidden["codes"]

    class Cheat(TestPlain):
        def coder(self):
            return Hiding()

    with pytest.raises(AssertionError):
        Cheat().test_no_code_beats_the_source()


def test_the_information_content_is_that_of_the_codes():
    """Its average is the entropy of a finely rounded Gaussian, h − log2 of the cell."""
    contract = TestPlain()
    codes, information = contract.codes(1, 400, 50)
    fine = 0.5 * np.log2(2 * np.pi * np.e * contract.spread**2)  # the entropy of rounding to fine cells
    standard_error = 0.5 * np.log2(np.e) * np.sqrt(2 / codes.size)
    assert abs(information / codes.size - fine) < 5 * standard_error + 1e-3


def test_a_decoder_that_a_file_does_not_give_back_is_caught():
    @register("quantizer", "tests/forgetful")
    @dataclasses.dataclass(frozen=True)
    class Forgetful(Rounding):
        def to_state(self):
            return [float(np.float16(self.step))]

        @staticmethod
        def from_state(state, shape):
            return Forgetful(*state)

    Wrong(Forgetful(0.5)).test_what_is_measured_is_what_is_stored()
    with pytest.raises(AssertionError):
        Wrong(Forgetful(0.3)).test_what_is_measured_is_what_is_stored()


def test_a_wrong_product_with_inputs_is_caught():
    @register("transform", "tests/twisted")
    class Twisted(Scaling):
        def on_inputs(self, x):
            return x / self.scale

        @staticmethod
        def from_state(state, columns):
            return Twisted(np.frombuffer(state[0]), state[1])

    class Contract(TestScaling):
        def transform(self, sigma, seed):
            return Twisted(super().transform(sigma, seed).scale)

    with pytest.raises(AssertionError):
        Contract().test_products_with_inputs_are_invariant()


def test_options_that_no_file_holds_are_caught():
    class Arrays(TestPlain):
        def coder(self):
            return Plain(width=np.int64(4))  # pyright: ignore[reportArgumentType]

    with pytest.raises(AssertionError, match="no file can hold"):
        Arrays().test_a_file_gives_back_the_same_coder()


@register("quantizer", "tests/half")
@dataclasses.dataclass(frozen=True, eq=False)
class Half(BaseQuantizer):
    """Multiples of a float16 step in groups of columns, ordered, -3 ... 3, with forms: everything that can be wrong."""

    step: np.ndarray
    group: int = 2

    ordered = True
    wrong = ""

    @property
    def coder(self):
        return FixedLength(7, -3)

    def encode(self, x):
        require_finite("x", x)
        return np.clip(np.rint(x / self.steps(x.shape[1])), -3, 3).astype(np.int32)

    def decode(self, codes):
        whole = np.trunc(codes) if self.wrong == "ordered" else codes
        found = whole * self.steps(codes.shape[1])
        return found.astype(np.float32) if self.wrong == "dtype" else found

    def steps(self, columns):
        return np.repeat(self.step, self.group, axis=1)[:, :columns]

    def stored(self):
        return dataclasses.replace(self, step=self.step.astype(np.float16).astype(float))

    @classmethod
    def concatenate(cls, parts, group):
        parts = parts[:1] * len(parts) if cls.wrong == "join" else parts
        return cls(np.concatenate([part.step for part in parts], axis=1), group)

    def packed_form(self, codes, shifts=None):
        numbers = np.arange(-3.0, 4.0)[None] * (1 + (self.wrong == "packed"))
        groups = self.step.shape[1]
        return NumberForm(
            codes + 3, numbers, np.zeros((len(codes), groups), int), self.step.repeat(len(codes), 0), self.group
        )

    def table_form(self):
        return TableForm(np.arange(-3.0, 4.0)[None, None, :, None], 1, 9) if self.wrong == "table" else None

    def to_state(self):
        return [self.group, self.step.astype("<f2").tobytes()]

    @classmethod
    def from_state(cls, state, shape):
        if cls.wrong == "state":
            return cls(np.frombuffer(state[1], "<f2").astype(float)[None], state[0])
        schema = Record(group=Integer(1, 1 << 20), steps=Octets(lambda at: 2 * -(-at.columns // at.group)))
        group, steps = checked(schema, state, "tests/half", columns=shape[1])
        return cls(stored_halves(steps, (1, -1)), group)


STEP, OTHER = np.array([[2.0]]), np.array([[3.0]])


class TestHalf(QuantizerContract):
    columns, code_range, spread = 2, (-3, 3), 2.5

    def quantizer(self, xp):
        return Half(xp.asarray(STEP)) if xp is numpy_namespace else pytest.skip("computes in NumPy")

    def beside(self):
        return Half(OTHER)


@pytest.mark.parametrize(
    ("fault", "law", "message"),
    [
        ("join", "a_joined_quantizer_is_its_groups_side_by_side", "Not equal"),
        ("packed", "forms_are_what_the_codes_decode_to", "Not equal"),
        ("table", "forms_are_what_the_codes_decode_to", "Not equal"),
        ("ordered", "codes_between_two_decode_to_what_lies_between", "not between"),
        ("dtype", "codes_decode_to_the_dtype_of_the_quantizer", "float32"),
        ("state", "a_damaged_state_is_refused", "lattq.coding.schema"),
    ],
)
def test_a_wrong_answer_of_a_quantizer_is_caught(fault, law, message):
    cls = register("quantizer", f"tests/{fault}")(type(fault.title(), (Half,), {"wrong": fault}))

    class Faulty(TestHalf):
        def quantizer(self, xp):
            return cls(STEP)

        def beside(self):
            return cls(OTHER)

    with pytest.raises(AssertionError, match=message):
        getattr(Faulty(), f"test_{law}")()


def test_nan_in_a_state_is_caught():
    @register("quantizer", "tests/any")
    class AnyNumber(Half):
        @classmethod
        def from_state(cls, state, shape):
            group, steps = checked(Record(group=Integer(2, 2), steps=Octets(2)), state)
            return cls(np.frombuffer(steps, "<f2").astype(float)[None], group)

    class Faulty(TestHalf):
        def quantizer(self, xp):
            return AnyNumber(STEP)

    with pytest.raises(AssertionError, match="decodes to NaN"):
        Faulty().test_a_damaged_state_is_refused()


@pytest.mark.parametrize(("beside", "message"), [(None, "joins groups: give another Half"), (STEP, "the same numbers")])
def test_a_join_is_not_checked_without_another_quantizer(beside, message):
    class Alone(TestHalf):
        def beside(self):
            return None if beside is None else Half(beside)

    with pytest.raises(AssertionError, match=message):
        Alone().test_a_joined_quantizer_is_its_groups_side_by_side()


class Identical(TestScaling):
    """Not collected: scales of powers of two, with a class of transforms given."""

    columns = (2, 4)

    def __init__(self, cls):
        self.cls = cls

    def transform(self, sigma, seed):
        return self.cls(np.exp2(np.arange(len(sigma))))


@pytest.mark.parametrize(
    ("law", "answers"),
    [
        ("a_plain_transform_has_nothing_to_undo", {"plain": True}),
        (
            "entries_that_are_not_kept_do_not_count",
            {"kept": lambda self, shape, found=None: np.zeros(shape, bool)},
        ),
        ("entries_that_are_not_kept_do_not_count", {"kept": lambda self, shape, found=None: np.ones(3)}),
        ("entries_that_are_not_kept_do_not_count", {"keeps_entries": True}),
        ("a_sparse_part_is_undone_last", {"split": lambda self: (None, Hadamard(0))}),
        ("columns_grow_by_their_exponents", {"exponents": np.arange(4)}),
        ("columns_grow_by_their_exponents", {"exponents": property(lambda self: 16 * np.arange(len(self.scale)))}),
        ("dtypes_are_kept", {"forward": lambda self, weight: weight / self.scale.astype(np.float64)}),
        ("what_was_done_to_inputs_can_be_undone", {"on_inputs": Scaling.inverse, "inverse_on_inputs": Scaling.inverse}),
        ("what_was_done_to_inputs_can_be_undone", {"inverse_on_inputs": Scaling.forward}),
        ("operations_are_counted", {"operations": lambda self, columns: -1}),
        ("operations_are_counted", {"operations": lambda self, columns: columns**3}),
        ("a_damaged_state_is_refused", {"from_state": staticmethod(lambda state, n: Scaling(np.frombuffer(state[0])))}),
    ],
)
def test_a_wrong_answer_of_a_transform_is_caught(law, answers):
    Identical(Scaling).test_columns_grow_by_their_exponents()
    cls = register("transform", "tests/answers")(type("Answers", (Scaling,), answers))
    with pytest.raises((AssertionError, ValueError)):
        getattr(Identical(cls), f"test_{law}")()


def test_right_exponents_pass():
    rising = property(lambda self: -16 * np.arange(len(self.scale)))
    Identical(type("Rising", (Scaling,), {"exponents": rising})).test_columns_grow_by_their_exponents()


def test_a_coder_that_does_not_expect_damage_is_caught():
    class Careless(TestPlain):
        def coder(self):
            return Unguarded()

    with pytest.raises(AssertionError, match=r"raises error: .* read it with `lattq.coding.schema`"):
        Careless().test_damage_is_refused()


@pytest.mark.parametrize(
    ("check", "part", "message"),
    [
        (check_quantizer, AbsMax(), r"AbsMax.*, a design; pass a quantizer"),
        (check_quantizer, Half, r"Half'>, a class; pass a quantizer"),
        (check_transform, Scaling(np.ones(2)), r"no design; for a transform pass `lambda weight, sigma: it`"),
    ],
)
def test_what_is_no_part_to_check_is_named(check, part, message):
    with pytest.raises(InvalidInputError, match=message):
        check(part)


@pytest.mark.parametrize("design", [Hadamard(1), then(Hadamard(1), Normalize())], ids=str)
def test_designs_of_the_library_pass_the_checks(design):
    check_transform(design, columns=(1, 2, 4, 8, 12))


@pytest.mark.parametrize(
    ("design", "message"), [(Hadamard(1), "the nearest sizes are 2 and 4"), (Equalize(), "comes last of all")], ids=str
)
def test_what_a_design_cannot_take_is_said(design, message):
    with pytest.raises(InvalidInputError, match=message):
        check_transform(design, columns=(3,))
