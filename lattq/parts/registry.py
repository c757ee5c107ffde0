"""The registry of parts: which class a kind in a file stands for."""

import contextlib
import importlib.metadata
import re
from collections.abc import Callable
from typing import Any, TypeVar

from lattq._options import among
from lattq.errors import DamagedFileError, InvalidInputError, MissingPartError, shown

__all__ = ["GROUP", "ROLES", "find", "kind_of", "register", "require_part"]

GROUP = "lattq.parts"
Part = TypeVar("Part", bound=type)

_STATE = ("components", "to_state", "from_state")
# What the parts of a role answer, and the base class that answers the most for them. Components are parts inside.
ROLES = {
    "transform": (
        (
            *("forward", "inverse", "congruence", "plain", "keeps_entries", "exponents", "on_inputs", "kept", "split"),
            *("inverse_on_inputs", "operations", "check_rows", "output_congruence", "row_factors", *_STATE),
        ),
        "lattq.transforms.BaseTransform",
    ),
    "quantizer": (
        (
            *("encode", "decode", "coder", "overload", "underflow", "idle", "ordered", "stored", "concatenate"),
            *("check_codes", "check_coder", "packed_form", "table_form", "in_block", "idle_zeros", "carried", *_STATE),
            *("in_front", "strip", "along", "stacked", "steps", "with_steps"),
        ),
        "lattq.quantizers.BaseQuantizer",
    ),
    "coder": (("encode", "decode", "gains", "live", "carries", "context", *_STATE), "lattq.coding.BaseCoder"),
}

_classes: dict[tuple[str, str], type] = {}
_kinds: dict[tuple[str, type], str] = {}


def register(role: str, kind: str) -> Callable[[Part], Part]:
    """Class decorator: files call parts of this class `kind`.

    Parameters
    ----------
    role : "transform", "quantizer" or "coder"
    kind : "package/word", the package as it is installed; plain words are the parts of lattq

    Raises
    ------
    InvalidInputError : for another role, a kind that is taken or not of this form, or a class that lacks what parts of
        its role answer; it names what is missing

    Examples
    --------
    >>> from lattq.quantizers import BaseQuantizer
    >>> @register("quantizer", "acme/signs")
    ... class Signs(BaseQuantizer):
    ...     def encode(self, x):
    ...         return (x > 0).astype(np.int32)
    ...     def decode(self, codes):
    ...         return 2.0 * codes - 1.0
    ...     def to_state(self):
    ...         return []
    ...     @staticmethod
    ...     def from_state(state, shape):
    ...         return Signs()
    >>> kind_of("quantizer", Signs())
    'acme/signs'
    """
    if not among(role, ROLES):
        msg = f"`role` is {shown(role)}; choose {', '.join(ROLES)}"
        raise InvalidInputError(msg)

    def add(cls: Part) -> Part:
        own = cls.__module__.split(".")[0] == "lattq"
        if not re.fullmatch(r"([\w.-]+/)?[\w-]+" if own else r"[\w.-]+/[\w-]+", kind):
            msg = f'`kind` is {shown(kind)}; a part of another package is "package/word", the package as pip knows it'
            raise InvalidInputError(msg)
        names, base = ROLES[role]
        missing = _missing(cls, names)
        if missing:
            msg = f"{cls.__name__} is no {role}: it lacks {', '.join(missing)}; write them, or inherit from {base}"
            raise InvalidInputError(msg)
        taken = _classes.get((role, kind))
        if taken is not None and _name(taken) != _name(cls):  # a module that is loaded again replaces its own parts
            msg = f"the {role} {kind!r} is {_name(taken)} already; choose another `kind` for {_name(cls)}"
            raise InvalidInputError(msg)
        _classes[role, kind], _kinds[role, cls] = cls, kind
        return cls

    return add


def kind_of(role: str, part: Any) -> str:
    """Kind of a part in a file; raises `InvalidInputError` for one that no file can hold, or that contains one.

    >>> from lattq.coding import TwoWay
    >>> kind_of("coder", TwoWay())
    'two-way'
    """
    require_part(role, part)
    for inner in part.components:
        kind_of(role, inner)
    return _kinds[role, type(part)]


def require_part(role: str, part: Any) -> None:
    """Raise `InvalidInputError` unless a file can hold this part; it says what the class lacks.

    >>> require_part("coder", None)
    Traceback (most recent call last):
    lattq.errors.InvalidInputError: a file cannot hold the coder None: NoneType is not registered, and lacks ...
    """
    cls = type(part)
    if (role, cls) in _kinds:
        return
    names, base = ROLES[role]
    missing = _missing(cls, names)
    lacks = f", and lacks {', '.join(missing)}; inherit from {base}, and" if missing else ";"
    msg = (
        f"a file cannot hold the {role} {part!r}: {cls.__name__} is not registered{lacks} put "
        f'@lattq.register("{role}", "package/word") above the class'
    )
    raise InvalidInputError(msg)


def find(role: str, kind: Any) -> Any:
    """The class that a kind in a file stands for; a package that is installed is asked for its parts first.

    Raises
    ------
    DamagedFileError : for a plain word that lattq does not know
    MissingPartError : for a part of a package that is not installed, has no entry point, or does not register it

    Examples
    --------
    >>> find("coder", "two-way")
    <class 'lattq.coding.twoway.TwoWay'>
    """
    found = _classes.get((role, kind))
    if found is None and isinstance(kind, str) and "/" in kind:
        _load(role, kind)
        found = _classes.get((role, kind))
        if found is None:
            package = kind.partition("/")[0]
            msg = f"{package} is installed, but registers no {role} {kind!r}; install the version that wrote the file"
            raise MissingPartError(msg, role=role, kind=kind)
    if found is None:
        msg = f"there is no {role} {kind!r}; the file is damaged, or of a later release"
        raise DamagedFileError(msg)
    return found


def _load(role: str, kind: str) -> None:
    """Import what the package of a kind registers; only names of installed entry points are ever imported."""
    package = kind.partition("/")[0]
    points = [point for point in importlib.metadata.entry_points(group=GROUP) if _names(point, package)]
    if not points:
        advice = f"pip install {package}"
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            version = importlib.metadata.version(package)
            advice = f"{package} {version} is installed, but has no entry point in the group {GROUP!r}"
        msg = f"this file needs the {role} {kind!r}; {advice}"
        raise MissingPartError(msg, role=role, kind=kind)
    for point in points:
        try:
            point.load()
        except Exception as error:
            msg = f"this file needs the {role} {kind!r}, but {point.value} of {package} does not load: {error}"
            raise MissingPartError(msg, role=role, kind=kind) from error


def _names(point: importlib.metadata.EntryPoint, package: str) -> bool:
    """Whether an entry point has the name of a package, or belongs to it, as pip compares names."""
    owner = point.dist.name if point.dist is not None else None
    return _normal(package) in (_normal(point.name), _normal(owner or point.name))


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def _missing(cls: type, names: tuple[str, ...]) -> list[str]:
    fields = getattr(cls, "__dataclass_fields__", {})
    return [name for name in names if not hasattr(cls, name) and name not in fields]


def _name(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"
