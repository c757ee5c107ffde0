"""What a scheme explains is what it does: bits add up to the rate, the last distortion is the measured one."""

import dataclasses

import numpy as np
import pytest

import lattq as lq
from tests.schemes import NAMES, every_scheme
from tests.strategies import gaussian_layer

WEIGHT, SIGMA = gaussian_layer(24, 8)


@pytest.mark.parametrize("name", NAMES)
def test_bits_add_up_to_the_rate_and_the_last_distortion_is_the_measured_one(name: str):
    scheme = every_scheme(8)[name]
    layer, found = lq.quantize(WEIGHT, SIGMA, scheme), scheme.explain(WEIGHT, SIGMA)
    assert found.rate == layer.rate
    assert sum(stage.nbytes for stage in found.stages) == layer.nbytes
    assert found.distortion == layer.distortion(WEIGHT, SIGMA)
    assert min(stage.nbytes for stage in found.stages) >= 0


@pytest.mark.parametrize("scheme", [lq.recipes.gptq(4, group=None), lq.recipes.squeezellm(3, outliers=0.05)], ids=str)
def test_zeros_are_where_it_starts(scheme: lq.Scheme):
    """Of all weights: no part stands for some of them yet."""
    found = scheme.explain(WEIGHT, SIGMA)
    assert found.stages[0].distortion == pytest.approx(np.trace(WEIGHT @ SIGMA @ WEIGHT.T) / WEIGHT.size, rel=1e-12)


def test_every_stage_that_runs_has_a_line():
    scheme = lq.Scheme(quantizer=lq.quantizers.MinMax(4, 4), sweeps=2, refit=("columns",))
    names = [stage.name for stage in scheme.explain(WEIGHT, SIGMA).stages]
    assert names[:6] == ["weights", "transform", "feedback", "loop", "sweeps", "refit"]
    plain = dataclasses.replace(scheme, sweeps=0, refit=())
    assert not {"sweeps", "refit", "rounds"} & {stage.name for stage in plain.explain(WEIGHT, SIGMA).stages}
    rounds = lq.recipes.gptvq(2, dimension=1, down=True)
    assert "rounds" in [stage.name for stage in rounds.explain(WEIGHT, SIGMA).stages]


def test_it_prints_as_a_table():
    text = str(lq.recipes.rtn(4).explain(WEIGHT, SIGMA))
    lines = text.splitlines()
    assert lines[0].split() == ["stage", "does", "bits", "distortion"]
    assert lines[-1].startswith("all")
    assert max(map(len, lines)) <= 120
