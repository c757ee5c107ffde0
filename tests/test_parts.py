"""The registry of parts, and that nothing above the loop asks which part it holds."""

import ast
import dataclasses
import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import lattq as lq
from lattq.coding import BaseCoder, TwoWay
from lattq.errors import InvalidInputError
from lattq.parts import register, registry
from lattq.parts.registry import ROLES, kind_of, require_part
from lattq.quantizers import BaseDesign, BaseQuantizer, UniformQuantizer
from lattq.transforms import BaseTransform
from lattq.transforms.chains import Chain
from lattq.transforms.maps import Identity
from tests.strategies import gaussian_layer
from tests.test_imports import FILES, LEVEL, module_name, part_of

DESIGNS = {"TransformDesign", "Design", "Feedback"}  # of which a scheme is made: no kinds


def part_classes() -> set[str]:
    """Names of registered classes, and of all that transforms and quantizers have: designs among them."""
    names = {cls.__name__ for cls in {cls for _, cls in registry._kinds} if cls.__module__.startswith("lattq.")}
    for room in (lq.transforms, lq.quantizers):
        names |= {name for name, value in vars(room).items() if inspect.isclass(value)}
    return names - DESIGNS


def answers() -> set[str]:
    """Names of all that parts and designs answer: fields, attributes and methods."""
    classes = {cls for _, cls in registry._kinds if cls.__module__.startswith("lattq.")}
    classes |= {cls for room in (lq.transforms, lq.quantizers) for cls in vars(room).values() if inspect.isclass(cls)}
    return {name for cls in classes for name in dir(cls) + list(getattr(cls, "__dataclass_fields__", ()))}


def questions(source: str, names: set[str]) -> list[int]:
    """Lines that ask whether something has an attribute that parts answer with, or has it with a default."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("hasattr", "getattr"):
            name = getattr(node.args[1], "value", None)
            found += [node.lineno] * (name in names)
    return found


def ladders(source: str, names: set[str]) -> list[int]:
    """Lines that ask whether something is an instance, or the type, of a part."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("isinstance", "issubclass"):
            kinds = node.args[1]
        elif isinstance(node, ast.Compare) and any(isinstance(op, ast.Is | ast.Eq) for op in node.ops):
            kinds = node
        elif isinstance(node, ast.MatchClass):
            kinds = node.cls
        else:
            continue
        asked = {getattr(part, "attr", getattr(part, "id", "")) for part in ast.walk(kinds)}
        found += [node.lineno] * bool(asked & names)
    return found


@pytest.mark.parametrize(
    "path",
    [path for path in FILES if LEVEL.get(part_of(module_name(path)) or "", 0) >= LEVEL["feedback"]],
    ids=module_name,
)
def test_from_the_loop_on_nothing_asks_what_a_part_is_or_has(path: Path):
    assert not ladders(path.read_text(), part_classes() - {"BaseDesign"})
    assert not questions(path.read_text(), answers())


@pytest.mark.parametrize(
    "source", ["getattr(design, 'scale_free', False)", "hasattr(q, 'row_classes')", "getattr(q, 'in_block')"]
)
def test_a_question_is_found(source: str):
    assert questions(source, answers()) == [1]
    assert not questions("getattr(config, 'vocab_size', 0)", answers())


@pytest.mark.parametrize(
    "source",
    [
        "isinstance(q, UniformQuantizer)",
        "isinstance(t, transforms.Chain | int)",
        "type(q) is quantizers.Lattice",
        "match q:\n    case Codebook(): pass",
    ],
)
def test_a_ladder_is_found(source: str):
    assert ladders(source, part_classes()) == [1] or ladders(source, part_classes()) == [2]


def test_the_registry_holds_what_files_name():
    assert kind_of("coder", TwoWay()) == "two-way"
    assert registry.find("quantizer", "uniform") is UniformQuantizer


class Minimal:
    """The protocol of the loop, and nothing else."""

    coder = TwoWay()

    def encode(self, x):
        return np.rint(x).astype(np.int32)

    def decode(self, codes):
        return codes * 1.0

    def overload(self, x):
        return 0


@dataclasses.dataclass(frozen=True)
class OneOf(BaseDesign):
    quantizer: object
    group: int | None = None
    shrink: bool = False

    def __call__(self, entries):
        return self.quantizer


def test_a_quantizer_that_no_file_can_hold_fails_before_anything_is_encoded(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(Minimal, "encode", None)
    with pytest.raises(
        InvalidInputError, match=r"Minimal is not registered, and lacks .*to_state, from_state"
    ) as caught:
        lq.quantize(*gaussian_layer(6, 4), lq.Scheme(quantizer=OneOf(Minimal())))  # pyright: ignore[reportArgumentType]
    for name in ("encode", "decode", "coder", "overload"):
        assert f" {name}," not in str(caught.value)
    assert "lattq.quantizers.BaseQuantizer" in str(caught.value)
    assert '@lattq.register("quantizer", "package/word")' in str(caught.value)


def test_a_coder_that_no_file_can_hold_fails_with_the_scheme():
    class Raw(BaseCoder):
        pass

    with pytest.raises(InvalidInputError, match="Raw is not registered, and lacks encode, decode; inherit"):
        lq.Scheme(coder=Raw())


def test_a_transform_that_no_file_can_hold_is_found_in_a_chain():
    class Nothing(BaseTransform):
        def forward(self, weight):
            return weight

        inverse = congruence = forward

    with pytest.raises(InvalidInputError, match="Nothing is not registered, and lacks to_state, from_state"):
        kind_of("transform", Chain((Identity(), Chain((Nothing(),)))))  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("role", ROLES)
def test_classes_are_checked_when_they_are_registered(role: str):
    with pytest.raises(InvalidInputError, match=f"Empty is no {role}: it lacks .*, to_state, from_state"):
        register(role, "tests/empty")(type("Empty", (), {}))
    with pytest.raises(InvalidInputError, match="package/word"):
        register(role, "word")(type("Empty", (), {}))


def test_a_kind_has_one_class():
    def sign(name: str):
        methods = {m: (lambda *_: None) for m in ("encode", "decode", "to_state", "from_state")}
        return register("quantizer", "tests/taken")(type(name, (BaseQuantizer,), methods))

    sign("Once")
    sign("Once")  # a module that is imported again
    with pytest.raises(InvalidInputError, match=r"'tests/taken' is .*Once already"):
        sign("Twice")
    with pytest.raises(InvalidInputError, match="`role` is 'metric'"):
        register("metric", "tests/taken")


@register("quantizer", "tests/careless")
@dataclasses.dataclass(frozen=True, eq=False)
class Careless(BaseQuantizer):
    """Returns what `encoded` and `decoded` make of it; fields may have any name but those of answers."""

    encoded: Callable[[np.ndarray], Any] = np.asarray
    decoded: Callable[[np.ndarray], Any] = np.asarray
    part: int = 3

    def encode(self, x):
        return self.encoded(np.rint(x).astype(np.int32))

    def decode(self, codes):
        return self.decoded(codes * 1.0)

    def to_state(self):
        return []

    @staticmethod
    def from_state(state, shape):
        return Careless()


@pytest.mark.parametrize(
    ("quantizer", "message"),
    [
        (
            Careless(encoded=np.transpose),
            r"`encode` of Careless returns a ndarray of shape \(1, 6\) for a block of shape",
        ),
        (Careless(encoded=np.ndarray.tolist), r"`encode` of Careless returns a list for .* return a ndarray of that"),
        (Careless(decoded=lambda x: x[:1]), r"`decode` of Careless returns a ndarray of shape \(1, 1\) for a block"),
    ],
    ids=["turned", "list", "one row"],
)
def test_what_a_quantizer_must_not_return_is_named(quantizer: Careless, message: str):
    with pytest.raises(InvalidInputError, match=message):
        lq.quantize(*gaussian_layer(6, 4), lq.Scheme(quantizer=OneOf(quantizer)))


def test_fields_may_have_any_name():
    assert lq.quantize(*gaussian_layer(6, 4), lq.Scheme(quantizer=OneOf(Careless()))).shape == (6, 4)


def test_numbers_that_decode_to_nan_are_named():
    layer = lq.quantize(*gaussian_layer(6, 4), lq.Scheme(quantizer=OneOf(Careless())))
    wrong = dataclasses.replace(layer, quantizer=Careless(decoded=lambda x: x * np.nan))
    with pytest.raises(InvalidInputError, match=r"decode to NaN; the numbers of Careless.* or of Gain"):
        wrong.dequantize()


def test_a_design_that_is_none_is_named():
    class Empty(BaseDesign):
        pass

    with pytest.raises(InvalidInputError, match="Empty chooses no quantizer; write `__call__"):
        lq.quantize(*gaussian_layer(6, 4), lq.Scheme(quantizer=Empty()))


def test_a_subclass_is_a_part_of_its_own():
    class Other(UniformQuantizer):
        pass

    with pytest.raises(InvalidInputError, match="Other is not registered; put"):
        require_part("quantizer", Other(np.ones((1, 1))))


def test_a_state_that_no_file_can_hold_is_named():
    @register("quantizer", "tests/arrays")
    class Arrays(BaseQuantizer):
        def encode(self, x):
            return np.rint(x).astype(np.int32)

        def decode(self, codes):
            return codes * 1.0

        def to_state(self):
            return [np.ones(2)]

        @staticmethod
        def from_state(state, shape):
            return Arrays()

    with pytest.raises(InvalidInputError, match=r"`to_state` of .* is what no file can hold"):
        lq.quantize(*gaussian_layer(6, 4), lq.Scheme(quantizer=OneOf(Arrays())))  # pyright: ignore[reportArgumentType]


def test_states_and_streams_that_no_file_can_hold_are_named():
    @register("transform", "tests/arrays")
    class Same(Identity):
        def to_state(self):
            return [np.ones(2)]

    @register("coder", "tests/arrays")
    @dataclasses.dataclass(frozen=True)
    class Arrays(BaseCoder):
        width: Any = 4

        def encode(self, codes, prior=0):
            return codes

        def decode(self, data, shape, prior=0):
            return data

    weight, sigma = gaussian_layer(6, 4)
    layer = lq.quantize(weight, sigma, lq.Scheme(transform=Same()))
    for ask in (lambda layer: layer.rate, lambda layer: layer.sizes()):
        with pytest.raises(InvalidInputError, match=r"`to_state` of .*Same.* is what no file can hold"):
            ask(layer)
        with pytest.raises(InvalidInputError, match=r"what `encode` of .*Arrays.* returns is what no file can hold"):
            ask(lq.quantize(weight, sigma, lq.Scheme(coder=Arrays())))
        with pytest.raises(InvalidInputError, match=r"`to_state` of .*Arrays.* is what no file can hold"):
            ask(lq.quantize(weight, sigma, lq.Scheme(coder=Arrays(np.int64(4)))))


def test_a_design_for_numpy_gets_numpy():
    torch = pytest.importorskip("torch")
    weight, sigma = gaussian_layer(6, 4)
    scheme = lq.Scheme(quantizer=OneOf(Careless()))
    found = lq.quantize(torch.from_numpy(weight), torch.from_numpy(sigma), scheme)
    np.testing.assert_array_equal(found.codes, lq.quantize(weight, sigma, scheme).codes)
