"""Fixtures and hypothesis profiles for every test."""

import os
from collections.abc import Iterator
from types import ModuleType

import array_api_compat.numpy
import array_api_compat.torch
import array_api_strict
import hypothesis
import jaxtyping
import numpy as np
import pytest

from tests import type_checks

type_checks.install()  # before anything imports lattq
hypothesis.settings.register_profile("ci", derandomize=True, deadline=None, max_examples=30)
hypothesis.settings.register_profile("deep", deadline=None, max_examples=2000)
hypothesis.settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "ci"))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests first, so that no worker is left alone with one of them at the end."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def _cupy() -> ModuleType:
    """CuPy's namespace, or a skip that says why there is none."""
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    try:
        devices = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        pytest.skip(f"no CUDA driver: {error}")
    if not devices:
        pytest.skip("no CUDA device")
    import array_api_compat.cupy

    return array_api_compat.cupy


@pytest.fixture(scope="session", params=["numpy", "strict", "torch", pytest.param("cupy", marks=pytest.mark.gpu)])
def xp(request: pytest.FixtureRequest) -> ModuleType:
    """Each array namespace the generic code must run under."""
    if request.param == "cupy":
        return _cupy()
    return {
        "numpy": array_api_compat.numpy,
        "strict": array_api_strict,
        "torch": array_api_compat.torch,
    }[request.param]


@pytest.fixture
def rng() -> np.random.Generator:
    """Return a generator with the same seed in every test."""
    return np.random.default_rng(20260101)


@pytest.fixture
def unchecked() -> Iterator[None]:
    """Without the type checks that tests add to every signature: what a user runs."""
    before = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", before)
