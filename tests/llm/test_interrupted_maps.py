"""Interrupted designs and passes continue to the same bytes."""

import contextlib
import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lattq import llm, recipes
from lattq.errors import InvalidInputError
from lattq.llm.convert import passes
from lattq.llm.convert.kept import KeptArrays
from lattq.llm.convert.workspace import Workspace
from lattq.llm.source.places import places
from lattq.llm.tune import Balanced, FoldedMap, Rotate, SmoothQuant, fold
from lattq.progress import Stage
from tests.llm.conftest import TEXT
from tests.llm.test_convert import files


@dataclasses.dataclass(frozen=True)
class Slow:
    """Scales of one block after the other, each kept when it is found."""

    stop: int = 99
    found: list[str] = dataclasses.field(default_factory=list, compare=False, repr=False)

    def __call__(self, model: Any, windows: Any, *, work: Stage, keep: Any) -> tuple[FoldedMap, ...]:
        names = [name for name in places(model) if name.endswith("mlp_input")]
        for index, name in enumerate(names):
            if name not in keep:
                if index == self.stop:
                    raise KeyboardInterrupt
                keep[name] = {"scale": np.full(64, 2.0 ** (index + 1))}
                self.found.append(name)
            fold(model, name, "diagonal", keep[name]["scale"])
        return tuple(FoldedMap(name, "diagonal", 1.0, "Slow") for name in names)

    def __repr__(self) -> str:
        return "Slow()"


RTN: dict[str, Any] = {"recipe": recipes.rtn, "levels": 16, "samples": 4, "calibration_text": TEXT}


def test_an_interrupted_design_continues_to_the_same_bytes(tiny: Path, tmp_path: Path):
    whole, out = tmp_path / "whole", tmp_path / "out"
    llm.quantize_model(tiny, whole, maps=Slow(), **RTN)
    with contextlib.suppress(KeyboardInterrupt):
        llm.quantize_model(tiny, out, maps=Slow(stop=1), **RTN)
    assert out.with_name("out.partial").exists()
    other = r"interrupted run with other settings \(maps differ\)"
    with pytest.raises(InvalidInputError, match=other):
        llm.quantize_model(tiny, out, maps=SmoothQuant(), **RTN)
    with pytest.raises(InvalidInputError, match=other):
        llm.quantize_model(tiny, out, **RTN)
    again = Slow()
    llm.quantize_model(tiny, out, maps=again, **RTN)
    assert again.found == ["model.layers.1.mlp_input"]
    assert files(out) == files(whole)


def test_an_interrupted_pass_continues_behind_the_same_maps(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    whole, out, calls, quantize = tmp_path / "whole", tmp_path / "out", 0, passes.quantize
    options = {**RTN, "maps": [Rotate(), Balanced()]}
    llm.quantize_model(tiny, whole, **options)

    def failing(*args: Any, **more: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 9:
            raise KeyboardInterrupt
        return quantize(*args, **more)

    monkeypatch.setattr(passes, "quantize", failing)
    with contextlib.suppress(KeyboardInterrupt):
        llm.quantize_model(tiny, out, **options)
    llm.quantize_model(tiny, out, **options)
    assert calls == 9 - 1 + 14 - 7 + 1  # the block in work begins anew
    assert files(out) == files(whole)


def test_kept_arrays_are_found_again_and_damaged_ones_are_not(tmp_path: Path):
    workspace = Workspace(tmp_path / "out", {})
    keep = KeptArrays(workspace)
    assert workspace.empty()
    keep["a/b c"] = {"x": np.arange(3), "y": np.array(1 + 2j)}
    keep["b"] = {"x": np.zeros(0)}
    assert not workspace.empty()
    assert (sorted(keep), len(keep)) == (["a/b c", "b"], 2)
    assert keep["a/b c"]["y"] == 1 + 2j
    path = next((workspace.root / "maps").glob("a*"))
    path.write_bytes(path.read_bytes()[:-1] + b"?")
    assert list(keep) == ["b"]
    assert "a/b c" not in keep
    del keep["b"]
    with pytest.raises(KeyError):
        del keep["b"]
    with pytest.raises(ValueError, match="allow_pickle"):
        keep["c"] = {"x": np.array([None])}
    workspace.close()
