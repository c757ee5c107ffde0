"""Public names: listed, documented with an example, and the ones others rely on."""

import ast
import importlib
import importlib.util
import inspect
import io
import re
import tokenize
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType

import pytest

from tests.test_imports import FILES, module_name

# Users import lattq and its parts; the modules inside a part are its own business, and so are names with an underscore.
PUBLIC = [path for path in FILES if module_name(path).count(".") <= 1 and "._" not in module_name(path)]

# The names that notebooks, benchmarks and users rely on, by the module that must exist for them.
RELIED_ON = {
    "lattq": ["Scheme", "quantize", "refit", "at_rate", "Quantized", "save", "load"],
    "lattq.recipes": ["rtn", "gptq", "huffman_gptq", "watersic"],
    "lattq.bounds": ["waterfill", "rate_distortion", "layer_rate"],
    "lattq.lattices": ["E8"],
    "lattq.matmul": ["approximate"],
    "lattq.codebooks": ["kmeans", "kmeans_1d"],
    "lattq.affine": ["project", "certificate"],
}


def load(path: Path) -> ModuleType:
    """Import a module, or skip where an optional library is missing."""
    try:
        return importlib.import_module(module_name(path))
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] == "cupy":
            pytest.skip(f"{error.name} is not installed")
        raise


def bound_names(tree: ast.Module, package: str | None = None) -> set[str]:
    """Public functions and classes that a module defines; for a package also those it imports from its own modules."""
    names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    for node in tree.body:
        if package and isinstance(node, ast.ImportFrom) and f"{node.module}.".startswith(f"{package}."):
            names |= {alias.asname or alias.name for alias in node.names}
    return {name for name in names if not name.startswith("_")}


def used_elsewhere(name: str, path: Path) -> bool:
    """Whether another file of lattq uses a name: then it is shared inside the package without being public."""
    return any(re.search(rf"\b{name}\b", other.read_text()) for other in FILES if other != path)


@pytest.mark.parametrize("path", PUBLIC, ids=module_name)
def test_all_lists_what_is_public(path: Path):
    module = load(path)
    listed = getattr(module, "__all__", None)
    assert listed is not None, f"{module.__name__} has no __all__"
    assert len(set(listed)) == len(listed), f"{module.__name__}.__all__ repeats a name"
    missing = [name for name in listed if not hasattr(module, name)]
    assert not missing, f"{module.__name__}.__all__ lists {missing}, which do not exist"
    package = module.__name__ if path.name == "__init__.py" else None
    unlisted = bound_names(ast.parse(path.read_text()), package) - set(listed)
    unlisted = {name for name in unlisted if not used_elsewhere(name, path)}
    assert not unlisted, f"{module.__name__} defines {sorted(unlisted)}: list them, or begin with an underscore"


def documented(path: Path) -> list[tuple[str, object]]:
    """Public functions and classes of a module or of the package it heads; exceptions and protocols need no example."""
    module = load(path)
    members = [(name, getattr(module, name)) for name in getattr(module, "__all__", [])]
    return [
        (name, member)
        for name, member in members
        if (inspect.isfunction(member) or inspect.isclass(member))
        and f"{member.__module__}.".startswith(f"{module.__name__}.")
        and not (inspect.isclass(member) and (issubclass(member, Exception) or getattr(member, "_is_protocol", False)))
    ]


@pytest.mark.parametrize("path", PUBLIC, ids=module_name)
def test_public_names_are_documented_by_example(path: Path):
    assert inspect.getdoc(load(path)), f"{module_name(path)} has no docstring"
    for name, member in documented(path):
        text = inspect.getdoc(member) or ""
        assert text, f"{module_name(path)}.{name} has no docstring"
        assert ">>>" in text, f"{module_name(path)}.{name} shows no example"


@pytest.mark.parametrize("name", sorted(RELIED_ON))
def test_relied_on_names_exist(name: str):
    if importlib.util.find_spec(name) is None:
        pytest.skip(f"{name} does not exist yet")
    module = importlib.import_module(name)
    missing = [item for item in RELIED_ON[name] if not hasattr(module, item)]
    assert not missing, f"{name} lacks {missing}"


def test_an_unlisted_name_is_found():
    source = (
        "from lattq.bounds.a import rate\nfrom lattq.errors import E\ndef gap(): ...\ndef _own(): ...\nclass Level: ..."
    )
    assert bound_names(ast.parse(source), "lattq.bounds") == {"rate", "gap", "Level"}
    assert bound_names(ast.parse(source)) == {"gap", "Level"}
    assert not used_elsewhere("no_such_name_anywhere", FILES[0])


def test_every_part_has_an_api_page():
    pages = "\n".join(page.read_text() for page in (FILES[0].parents[1] / "docs" / "api").glob("*.md"))
    parts = {module_name(path) for path in PUBLIC} - {"lattq", "lattq.kernels"}  # kernels answer through other parts
    missing = sorted(part for part in parts if f"::: {part}\n" not in pages)
    assert not missing, f"no page in docs/api shows {missing}"


ROOT = FILES[0].parents[1]
MOST_NAMES, MOST_AT_THE_TOP = 166, 25
PAGES = [ROOT / "README.md", *ROOT.glob("docs/**/*.md"), *ROOT.glob("docs/tutorials/*.py"), *ROOT.glob("theory/*.py")]


def words_of_code(text: str) -> set[str]:
    """Words in the fenced blocks and the `inline code` of a page; lines that only place a module there do not count."""
    kept = "\n".join(line for line in text.splitlines() if not line.startswith(":::"))
    fenced = re.findall(r"^```[^\n]*\n(.*?)^```", kept, re.DOTALL | re.MULTILINE)
    inline = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", kept, flags=re.DOTALL | re.MULTILINE))
    return set(re.findall(r"\w+", " ".join([*fenced, *inline])))


def words_of_notebook(source: str) -> set[str]:
    """Names in the code of a notebook, and words of code in its comments."""
    tokens = list(tokenize.generate_tokens(io.StringIO(source).readline))
    comments = "\n".join(token.string.lstrip("# ") for token in tokens if token.type == tokenize.COMMENT)
    return {token.string for token in tokens if token.type == tokenize.NAME} | words_of_code(comments)


def shown() -> set[str]:
    """Every word that the documentation shows as code, outside what is generated from docstrings."""
    pages = [page for page in PAGES if "_generated" not in page.parts]
    words = [(words_of_notebook if page.suffix == ".py" else words_of_code)(page.read_text()) for page in pages]
    return set().union(*words)


def namespaces() -> dict[str, list[str]]:
    """What each namespace that users import from lists."""
    return {module_name(path): list(load(path).__all__) for path in PUBLIC}


def not_shown(names: Iterable[str], words: set[str]) -> list[str]:
    """Names that no page shows in use."""
    return sorted(name for name in names if name not in words)


def test_few_names_are_public():
    names = namespaces()
    total = len({(name, id(getattr(load(path), name))) for path in PUBLIC for name in load(path).__all__})
    assert total <= MOST_NAMES, f"{total} public names: { ({name: len(listed) for name, listed in names.items()}) }"
    assert len(names["lattq"]) <= MOST_AT_THE_TOP, f"lattq lists {names['lattq']}"


def test_public_names_are_shown_in_use():
    words = shown()
    found = {module: not_shown(names, words) for module, names in namespaces().items()}
    found = {module: names for module, names in found.items() if names}
    assert not found, f"no page shows {found}: show them in use, or leave them to the module that defines them"


def test_a_name_that_no_page_shows_is_found():
    page = "::: lattq.hidden\n\nProse about walking.\n\n```python\n>>> lq.quantize(weight)\n```\n\nSee `lq.save`."
    assert not_shown(["quantize", "save", "walking", "hidden"], words_of_code(page)) == ["hidden", "walking"]
    notebook = "# Prose about walking, and `lq.load`.\nlayer = lq.refit(layer)\ntitle = 'jumping'\n"
    assert not_shown(["refit", "load", "walking", "jumping"], words_of_notebook(notebook)) == ["jumping", "walking"]
    assert not_shown(["no_such_name_anywhere"], shown()) == ["no_such_name_anywhere"]
