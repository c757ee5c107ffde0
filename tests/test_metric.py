"""The metric of errors: checked once, two-sided, shrunk by its counts, and the same form everywhere."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import lattq as lq
from lattq.bounds.layer import output_spectrum
from lattq.errors import InvalidInputError, NotPositiveSemidefiniteError
from lattq.linalg.checks import require_root
from lattq.linalg.shrinkage import shrink
from tests.oracles.two_sided import layer_rate_by_bisection
from tests.strategies import moment, seeds, well_conditioned_moments

EPS = float(np.finfo(np.float64).eps)


def outputs_of(kind: str, rows: int, seed: int) -> np.ndarray:
    """A diagonal, blocks of two rows, or a whole matrix."""
    rng = np.random.default_rng(seed)
    spectrum = 10.0 ** rng.uniform(-1, 1, rows)
    if kind == "diagonal":
        return spectrum
    if kind == "blocks":
        return np.stack([moment(spectrum[i : i + 2], seed + i) for i in range(0, rows, 2)])
    return moment(spectrum, seed)


def whole(outputs: np.ndarray) -> np.ndarray:
    """G as a matrix."""
    if outputs.ndim == 2:
        return outputs
    blocks = outputs if outputs.ndim == 3 else outputs[:, None, None]
    found = np.zeros((len(blocks) * blocks.shape[1],) * 2)
    for k, block in enumerate(blocks):
        at = slice(k * len(block), (k + 1) * len(block))
        found[at, at] = block
    return found


KINDS = ["diagonal", "blocks", "matrix"]


@pytest.mark.parametrize("kind", KINDS)
@given(sigma=well_conditioned_moments(2, 5), seed=seeds)
def test_the_form_is_its_trace(kind: str, sigma: np.ndarray, seed: int):
    """tr(G E Σ Eᵀ) written out, for every form in which G may be given; G x too."""
    outputs = outputs_of(kind, 4, seed)
    metric, error = lq.Metric(sigma, outputs), np.random.default_rng(seed).standard_normal((4, len(sigma)))
    g = whole(outputs)
    expected = np.trace(g @ error @ sigma @ error.T) / error.size
    assert metric.squared_error(error) == pytest.approx(expected, rel=1e3 * EPS)
    np.testing.assert_allclose(metric.left(error), g @ error, atol=1e2 * EPS * np.abs(g).max() * np.abs(error).max())
    np.testing.assert_allclose(metric.diagonal(4), np.outer(np.diag(g), np.diag(sigma)))
    assert (metric.rows, metric.height) == (4, {"diagonal": 1, "blocks": 2, "matrix": 4}[kind])


@pytest.mark.parametrize("kind", [None, *KINDS])
@given(sigma=well_conditioned_moments(2, 5), seed=seeds)
def test_a_part_tells_that_an_error_is_large_and_all_that_it_is_not(kind: str | None, sigma: np.ndarray, seed: int):
    metric = lq.Metric(sigma, None if kind is None else outputs_of(kind, 4, seed))
    error = np.random.default_rng(seed).standard_normal((4, len(sigma)))
    exact = metric.squared_error(error)
    assert metric.at_least(error, 0.0)
    assert metric.at_least(error, exact)
    assert not metric.at_least(error, np.nextafter(exact, np.inf))
    assert not metric.at_least(error, np.nan)
    assert lq.Metric(np.zeros_like(sigma)).at_least(error, 0.0)


@given(sigma=well_conditioned_moments(1, 5))
def test_a_root_that_is_known_is_kept(sigma: np.ndarray):
    metric = lq.Metric(sigma, np.ones(3))
    assert metric.root.shape[0] == len(sigma)  # where the check needed none, it is found when it is asked for
    for one in (metric, metric.damped(), metric.of_inputs(), metric.of_groups(np.arange(2))):
        assert "root" in vars(one)
        np.testing.assert_array_equal(one.root, require_root(metric.inputs))
    assert "root" not in vars(metric.moved(lq.transforms.Diagonal(np.full(len(sigma), 2.0))))


@given(sigma=well_conditioned_moments(1, 4), seed=seeds)
def test_a_bare_second_moment_is_the_metric_without_outputs(sigma: np.ndarray, seed: int):
    weight = np.random.default_rng(seed).standard_normal((6, len(sigma)))
    scheme = lq.recipes.watersic(0.3)
    one, other = lq.quantize(weight, sigma, scheme), lq.quantize(weight, lq.Metric(sigma), scheme)
    assert one.to_bytes() == other.to_bytes()
    assert one.gap(weight, sigma) == one.gap(weight, lq.Metric(sigma))


@pytest.mark.parametrize("kind", KINDS)
@given(seed=seeds, share=st.floats(0.05, 0.9))
def test_the_rate_of_a_layer_is_waterfilling_over_products_of_spectra(kind: str, seed: int, share: float):
    """Against the spectrum of the whole Kronecker product and a bisection for the water level."""
    rng = np.random.default_rng(seed)
    sigma, outputs = moment(10.0 ** rng.uniform(-1, 1, 3), seed), outputs_of(kind, 4, seed)
    rows, columns = 10.0 ** rng.uniform(-1, 1, 4), 10.0 ** rng.uniform(-1, 1, 3)
    variance = np.outer(rows, columns)
    product = np.kron(whole(outputs), sigma)
    most = float(np.mean(np.diag(product) * variance.reshape(-1)))
    metric = lq.Metric(sigma, outputs)
    found = lq.bounds.layer_rate(metric, share * most, rows, columns)
    assert found == pytest.approx(layer_rate_by_bisection(product, variance, share * most), abs=1e-9)
    assert lq.bounds.layer_distortion(metric, found, rows, columns) == pytest.approx(share * most, rel=1e-9)


def test_the_spectrum_of_the_outputs_is_that_of_all_blocks():
    g = np.stack([np.diag([1.0, 2.0]), np.array([[2.0, 1.0], [1.0, 2.0]])])
    np.testing.assert_allclose(np.sort(output_spectrum(lq.Metric(np.eye(1), g), 2.0)), [2.0, 2.0, 4.0, 6.0])
    with pytest.raises(InvalidInputError, match=r"`row_variance` has 3 entries; the metric has 4 rows"):
        output_spectrum(lq.Metric(np.eye(1), g), np.ones(3))


@pytest.mark.parametrize("kind", KINDS)
def test_a_metric_is_saved_and_restored(kind: str):
    metric = lq.Metric(moment(np.array([1.0, 2.0]), 0), outputs_of(kind, 4, 1), input_count=7, output_count=2.5)
    again = lq.Metric.from_arrays(metric.to_arrays())
    for name in ("inputs", "outputs", "input_count", "output_count"):
        np.testing.assert_array_equal(getattr(again, name), getattr(metric, name))
    with pytest.raises(InvalidInputError, match="no `inputs`: not a saved metric"):
        lq.Metric.from_arrays({})
    with pytest.raises(InvalidInputError, match="`other`: not a saved metric"):
        lq.Metric.from_arrays({"inputs": np.eye(1), "other": np.eye(1)})


@given(seed=seeds, count=st.floats(2, 1e4))
def test_shrinking_goes_by_the_counts_of_each_side(seed: int, count: float):
    """One sample leaves the identity, exact sides stay; damping keeps the trace and narrows the spectrum."""
    g, sigma = moment(10.0 ** np.random.default_rng(seed).uniform(-1, 1, 4), seed), np.diag([1.0, 3.0])
    plain = lq.Metric(sigma, g)
    np.testing.assert_allclose(plain.shrunk(0.0).outputs[0], g, rtol=1e-12)
    damped = plain.damped(0.5).outputs[0]
    assert np.trace(damped) == pytest.approx(np.trace(g))
    assert np.ptp(np.linalg.eigvalsh(damped)) == pytest.approx(np.ptp(np.linalg.eigvalsh(g)) / 1.5)
    shrunk = lq.Metric(sigma, g, input_count=count, output_count=count).shrunk(0.0)
    np.testing.assert_allclose(shrunk.inputs, shrink(sigma, count).matrix)
    np.testing.assert_allclose(shrunk.outputs[0], shrink(g, count).matrix, rtol=1e-12, atol=1e-14)
    single = lq.Metric(sigma, g, output_count=1).shrunk().outputs[0]
    np.testing.assert_allclose(single, np.eye(4) * np.trace(g) / 4, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"outputs": np.zeros(3)}, "`outputs` is zero"),
        ({"outputs": np.array([1.0, np.nan])}, "`outputs`"),
        ({"outputs": np.ones((2, 3))}, r"`outputs` has shape \(2, 3\)"),
        (
            {"outputs": np.ones((1, 1, 1, 1))},
            r"`outputs` has shape \(1, 1, 1, 1\); pass a diagonal, a matrix, or blocks",
        ),
        ({"outputs": np.array([[1.0, 2.0], [0.0, 1.0]])}, "`outputs` is not symmetric"),
        ({"input_count": 0}, "`input_count` is 0"),
        ({"output_count": "many"}, "`output_count` is 'many'; pass a number"),
    ],
)
def test_what_is_no_metric_is_refused(arguments: dict, message: str):
    with pytest.raises(InvalidInputError, match=message):
        lq.Metric(np.eye(2), **arguments)


def test_a_negative_pivot_of_the_outputs_is_named():
    with pytest.raises(
        NotPositiveSemidefiniteError, match=r"`outputs` is not positive semidefinite: column 1"
    ) as error:
        lq.Metric(np.eye(2), np.array([[1.0, 2.0], [2.0, 1.0]]))
    assert error.value.index == 1


def test_a_metric_of_another_layer_is_refused():
    metric = lq.Metric(np.eye(2), np.ones(3))
    for shape in ((3, 4), (4, 2)):
        with pytest.raises(InvalidInputError, match="3 rows and 2 columns"):
            lq.quantize(np.ones(shape), metric, lq.recipes.watersic(0.1))
    layer = lq.quantize(np.ones((3, 2)), metric, lq.recipes.watersic(0.1))
    with pytest.raises(InvalidInputError, match="any number of rows and 4 columns"):
        layer.distortion(np.ones((3, 2)), lq.Metric(np.eye(4)))
