"""Run a contract suite on one part."""

import importlib
import inspect
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import array_api_compat.numpy as numpy_namespace
import numpy as np

from lattq.errors import InvalidInputError
from lattq.parts.registry import require_part
from lattq.quantizers import BaseDesign
from lattq.transforms.designs import refuse_equalize

__all__ = ["check_coder", "check_quantizer", "check_transform"]


def check_quantizer(
    quantizer: Any,
    *,
    columns: int = 1,
    spread: float = 4.0,
    code_range: tuple[int, int] | None = None,
    nearest: bool = True,
    beside: Any = None,
    libraries: tuple[ModuleType, ...] = (numpy_namespace,),
) -> None:
    """Check a quantizer: fixed points, ranges, nearest points, NaN, joins, forms, and what files make of it.

    Parameters
    ----------
    quantizer : the quantizer, or a function of an array namespace that makes one with arrays of that
    columns : that it takes at once
    spread : standard deviation of the test inputs: several cells wide, inside the range of finite codes
    code_range : smallest and largest code; None if they are unbounded
    nearest : whether `encode` promises the closest reconstruction
    beside : another quantizer of the class, as the next group of columns may have, if the class has a `concatenate`
    libraries : array namespaces that it must give the same codes in, as `array_api_compat` has them

    Raises
    ------
    AssertionError : with the law that is broken
    InvalidInputError : if hypothesis is missing, no file can hold the part, or it is a design or a class

    Examples
    --------
    >>> from lattq.quantizers import UniformQuantizer
    >>> check_quantizer(UniformQuantizer(np.array([[0.5]])), beside=UniformQuantizer(np.array([[0.75]])))
    """
    contracts = _contracts()
    if isinstance(quantizer, BaseDesign | type):
        kind = "class" if isinstance(quantizer, type) else "design"
        msg = f"`quantizer` is {quantizer!r}, a {kind}; pass a quantizer, such as a design makes of `Entries(values)`"
        raise InvalidInputError(msg)
    make = quantizer if inspect.isroutine(quantizer) else lambda xp: quantizer
    require_part("quantizer", make(numpy_namespace))

    class Check(contracts.QuantizerContract):
        def quantizer(self, xp: ModuleType) -> Any:
            return make(xp)

        def beside(self) -> Any:
            return beside

    check = Check()
    check.columns, check.spread, check.code_range, check.nearest = columns, spread, code_range, nearest
    _run(check, libraries)


def check_transform(
    design: Any, *, columns: Sequence[int] = range(1, 13), libraries: tuple[ModuleType, ...] = (numpy_namespace,)
) -> None:
    """Check a design of transforms: inverses, distortions, products, what it says of itself, and what files make of it.

    Parameters
    ----------
    design : of weight and second moment, as `lattq.Scheme` takes it
    columns : numbers of columns tried
    libraries : as in `check_quantizer`

    Raises
    ------
    AssertionError : with the law that is broken
    InvalidInputError : if hypothesis is missing, no file can hold the part, it is a transform and no design, or the
        design refuses a number of columns

    Examples
    --------
    >>> from lattq.transforms import Hadamard
    >>> check_transform(Hadamard(seed=1), columns=(1, 2, 4, 8, 12))
    """
    contracts = _contracts()
    refuse_equalize(design)
    if not callable(design):
        msg = f"`design` is {design!r}, no design; for a transform pass `lambda weight, sigma: it` and its `columns`"
        raise InvalidInputError(msg)
    require_part("transform", design(np.ones((1, columns[0])), np.eye(columns[0])))

    class Check(contracts.TransformContract):
        def transform(self, sigma: np.ndarray, seed: int) -> Any:
            return design(np.random.default_rng(seed).standard_normal((8, len(sigma))), sigma)

    check = Check()
    check.columns = columns
    _run(check, libraries)


def check_coder(
    coder: Any,
    *,
    low: int = -(2**31),
    high: int = 2**31 - 1,
    spread: float = 4.0,
    ideal_bits: Callable[[np.ndarray], float] | None = None,
    overhead_bits: Callable[[np.ndarray], float] | None = None,
) -> None:
    """Check a coder: exact round trips, extreme codes, reproducible bytes, damaged ones, and no bits hidden elsewhere.

    Parameters
    ----------
    coder : the coder
    low, high : smallest and largest code that it takes
    spread : standard deviation of the test codes
    ideal_bits : what its own model assigns to codes, in bits; None leaves the size unchecked
    overhead_bits : what it states beyond: headers, padding; None for nothing

    Raises
    ------
    AssertionError : with the law that is broken
    InvalidInputError : if hypothesis is missing, or no file can hold the part

    Examples
    --------
    >>> from lattq.coding import FixedLength
    >>> check_coder(FixedLength(16, -8), low=-8, high=7, ideal_bits=lambda codes: 4.0 * codes.size + 7)
    """
    contracts = _contracts()
    require_part("coder", coder)

    class Check(contracts.CoderContract):
        def coder(self) -> Any:
            return coder

        def ideal_bits(self, codes: np.ndarray) -> float:
            return np.inf if ideal_bits is None else ideal_bits(codes)

        def overhead_bits(self, codes: np.ndarray) -> float:
            return 0.0 if overhead_bits is None else overhead_bits(codes)

    check = Check()
    check.low, check.high, check.spread = low, high, spread
    _run(check, ())


def _contracts() -> ModuleType:
    try:
        return importlib.import_module("lattq.testing.contracts")
    except ModuleNotFoundError as error:
        if error.name != "hypothesis":
            raise
        msg = "the checks search for counterexamples with hypothesis: pip install hypothesis"
        raise InvalidInputError(msg) from error


def _run(check: Any, libraries: tuple[ModuleType, ...]) -> None:
    """Call every law, those about array libraries for each."""
    for name, law in inspect.getmembers(check, inspect.ismethod):
        if not name.startswith("test_"):
            continue
        of_library = "xp" in inspect.signature(law).parameters
        for arguments in [{"xp": xp} for xp in libraries] if of_library else [{}]:
            try:
                law(**arguments)
            except Exception as error:
                error.add_note(f"the law that is broken: {name.removeprefix('test_').replace('_', ' ')}")
                raise
