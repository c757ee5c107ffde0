"""Imports go downwards only; torch and transformers stay at the edge."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FILES = sorted(ROOT.glob("lattq/**/*.py"))

# A part may import the parts of the lines above its own, never a sibling on its line.
LEVELS = [
    {"errors", "progress"},
    {"_array", "_options"},
    {"parts"},
    {"linalg", "coding", "kernels"},
    {"_metric"},
    {"_layer"},
    {"bounds"},
    {"lattices", "trellis", "codebooks", "affine"},
    {"transforms", "quantizers"},
    {"feedback"},
    {"_payload", "_distortion"},
    {"_format_1"},
    {"_reconstruction"},
    {"quantized"},
    {"files", "least_squares", "packed", "explain"},
    {"_guard", "_coordinates"},
    {"scheme"},
    {"_rate_curve", "_step_search"},
    {"rate", "matmul"},
    {"recipes", "allocate"},
    {"export", "testing"},
    {"llm"},
    {"cli"},
]
LEVEL = {part: level for level, parts in enumerate(LEVELS) for part in parts}
# The rooms of llm, by the same rule.
ROOMS = [{"source"}, {"measure", "run"}, {"distill"}, {"convert", "evaluation", "tune"}]
ROOM = {room: level for level, rooms in enumerate(ROOMS) for room in rooms}
MODELS = {"torch", "transformers", "accelerate", "tokenizers"}
AT_THE_EDGE = {"llm", "cli"}


def module_name(path: Path) -> str:
    """Dotted name of a source file below the repository root."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported(source: str, module: str, *, package: bool) -> Iterator[tuple[int, str]]:
    """Line number and dotted name of everything that `source` imports, anywhere in it."""
    home = module.split(".") if package else module.split(".")[:-1]
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = home[: len(home) - node.level + 1] if node.level else []
            prefix = ".".join([*base, *filter(None, [node.module])])
            yield from ((node.lineno, f"{prefix}.{alias.name}") for alias in node.names)


def part_of(module: str) -> str | None:
    """Second component of a lattq module: the part it belongs to; None for lattq itself and for other packages."""
    names = module.split(".")
    return names[1] if names[0] == "lattq" and len(names) > 1 else None


def faults(source: str, module: str, *, package: bool = False) -> list[str]:
    """Sentences about each import of `source` that breaks the rule."""
    part, found = part_of(module), []
    if part is None:  # lattq/__init__.py is the table of contents
        return found
    if part not in LEVEL:
        return [f"{module}: `{part}` has no level; give it one in LEVELS"]
    for line, name in imported(source, module, package=package):
        where = f"{module}:{line}"
        if name.split(".")[0] in MODELS and part not in AT_THE_EDGE:
            found.append(f"{where} imports {name}; only {sorted(AT_THE_EDGE)} may")
        if name.split(".")[0] != "lattq":
            continue
        other = part_of(name)
        if other not in LEVEL:
            found.append(f"{where} imports {name} from the top of lattq; import the part that defines it")
        elif other == part:
            found += [f"{where} imports {name}, which is not below `{room}`" for room in _rooms_above(module, name)]
        elif part == "kernels" and other != "_array":
            found.append(f"{where} imports {name}; kernels import _array only")
        elif other == "kernels" and LEVEL[part] > LEVEL["_array"]:
            continue
        elif LEVEL[other] >= LEVEL[part]:
            found.append(f"{where} imports {name}, which is not below `{part}`")
    return found


def _rooms_above(module: str, name: str) -> list[str]:
    """The room of llm that `module` is in, if it imports another that is not below it."""
    mine, other = (one.split(".")[2] if one.startswith("lattq.llm.") else None for one in (module, name))
    if mine not in ROOM or mine == other or (other in ROOM and ROOM[other] < ROOM[mine]):
        return []
    return [mine]


def test_there_is_something_to_check():
    assert len(FILES) >= 2


@pytest.mark.parametrize("path", FILES, ids=module_name)
def test_imports_go_downwards(path: Path):
    found = faults(path.read_text(), module_name(path), package=path.name == "__init__.py")
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("lattq.bounds.gaussian", "from lattq.quantizers import Uniform"),
        ("lattq.bounds.gaussian", "def f():\n    import lattq.scheme"),
        ("lattq.bounds.gaussian", "from ..lattices import E8"),
        ("lattq.bounds.gaussian", "from lattq import lattices"),
        ("lattq.quantizers", "from lattq.transforms import Identity"),
        ("lattq.linalg.ldl", "import torch"),
        ("lattq.linalg.ldl", "from torch.linalg import cholesky"),
        ("lattq.recipes", "from lattq.llm.demo import run"),
        ("lattq.feedback", "from lattq import quantize"),
        ("lattq.kernels.viterbi", "from lattq.errors import InvalidInputError"),
        ("lattq.kernels.viterbi", "from lattq.trellis import Trellis"),
        ("lattq.gadgets", "import math"),
        ("lattq.llm.source.checkpoint", "from lattq.llm.run.plugin import LattqConfig"),
        ("lattq.llm.measure.hidden_states", "from lattq.llm.convert.report import Report"),
        ("lattq.llm.run.layers", "from lattq.llm import quantize_model"),
    ],
)
def test_a_forbidden_import_is_found(module: str, source: str):
    assert faults(source, module)


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("lattq.bounds.gaussian", "from lattq._array import Array\nfrom lattq.bounds.waterfilling import waterfill"),
        ("lattq.bounds.gaussian", "from .waterfilling import waterfill"),
        ("lattq.scheme", "from lattq.quantized import Quantized\nfrom lattq.feedback import successive_cancellation"),
        ("lattq.trellis.search", "from lattq.kernels import lookup"),
        ("lattq.kernels.viterbi", "from lattq._array import Array\nimport numba\nimport cupy"),
        ("lattq.llm.run.layers", "import torch\nimport transformers\nfrom lattq import recipes"),
        ("lattq.llm.convert.passes", "from lattq.llm.measure.hidden_states import BlockStream"),
        ("lattq", "from lattq.scheme import quantize"),
    ],
)
def test_an_allowed_import_passes(module: str, source: str):
    assert not faults(source, module)


def test_relative_imports_of_a_package_start_in_the_package():
    assert list(imported("from .gaussian import rate", "lattq.bounds", package=True)) == [
        (1, "lattq.bounds.gaussian.rate")
    ]
    assert list(imported("from . import _array", "lattq", package=True)) == [(1, "lattq._array")]
