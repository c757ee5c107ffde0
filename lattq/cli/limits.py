"""`lattq bounds`: what no code can beat, and what simple codes lose."""

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import typer

from lattq import bounds as limits
from lattq import lattices
from lattq.bounds.high_rate import high_rate_distortion
from lattq.bounds.layer import layer_spectrum
from lattq.bounds.waterfilling import waterfill_product
from lattq.cli import figures
from lattq.cli.console import AsJson, Debug, command, number, parse_rates, print_json, print_table
from lattq.errors import InvalidInputError
from lattq.linalg import ldl
from lattq.linalg.checks import check_second_moment

__all__ = ["bounds"]

RATES = "0.25,0.5,1,1.5,2,2.5,3,4,5,6,8"
GROUP = 128
SCALE_BITS = 16
MOST_LEVELS = 256

# Normalised second moments; the cell of the best code is a ball.
SECOND_MOMENTS = {
    "Z": 1 / 12,
    "A2": lattices.A(2).nsm or 0.0,
    "D4": lattices.D(4).nsm or 0.0,
    "E8": lattices.E8.nsm or 0.0,
    "Barnes-Wall 16": lattices.BW16.nsm or 0.0,
    "Leech": lattices.Leech24.nsm or 0.0,
    "ball in many dimensions": 1 / (2 * np.pi * np.e),
}


@command
def bounds(
    rates: Annotated[str, typer.Option(help="Bits per weight, between commas.")] = RATES,
    variance: Annotated[float, typer.Option(help="Of the weights.")] = 1.0,
    sigma: Annotated[
        Path | None, typer.Option(help="Second moment of a layer's inputs, n x n, in an .npy file.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="Figure to write: .png, .pdf or .svg.")] = None,
    as_json: AsJson = False,
    debug: Debug = False,
) -> None:
    """Print the limits, and what simple codes lose.

    For Gaussian weights, or for a layer whose inputs have the second moment in --sigma.
    """
    wanted = parse_rates(rates)
    if plot is not None:
        figures.check(plot)
    if sigma is None:
        found = gaussian_limits(wanted, variance)
        show, draw = _print_gaussian, figures.gaussian
    else:
        found = layer_limits(_load(sigma), wanted, variance)
        show, draw = _print_layer, figures.layer
    if plot is not None:
        draw(found, plot)
    if as_json:
        print_json(found)
        return
    show(found)
    if plot is not None:
        typer.echo(f"figure: {plot}")


def gaussian_limits(rates: list[float], variance: float) -> dict[str, Any]:
    """Limits at each rate, and the gaps of cells at high rate.

    >>> [round(row["distortion"], 4) for row in gaussian_limits([1.0, 2.0], 1.0)["rates"]]
    [0.25, 0.0625]
    """
    return {
        "variance": variance,
        "group": GROUP,
        "rates": [_gaussian_row(rate, variance) for rate in rates],
        "space_filling": [
            {"cell": name, "second_moment": float(moment), "gap": limits.space_filling_gap(moment)}
            for name, moment in SECOND_MOMENTS.items()
        ],
    }


def _gaussian_row(rate: float, variance: float) -> dict[str, Any]:
    cell = limits.entropy_coded_scalar(rate, variance=variance)
    row = {
        "rate": rate,
        "distortion": limits.gaussian_distortion(variance, rate),
        "scalar_step": cell.step,
        "scalar_distortion": cell.distortion,
        "scalar_gap": cell.gap,
        "absmax_levels": None,
        "absmax_rate": None,
        "absmax_distortion": None,
        "absmax_gap": None,
    }
    levels = round(2**rate)
    if rate >= 1 and levels <= MOST_LEVELS:
        row["absmax_levels"] = levels
        row["absmax_rate"] = float(np.log2(levels)) + SCALE_BITS / GROUP
        row["absmax_distortion"] = limits.absmax_distortion(levels, GROUP, variance=variance)
        row["absmax_gap"] = limits.absmax_loss(levels, GROUP, scale_bits=SCALE_BITS)
    return row


def layer_limits(sigma: np.ndarray, rates: list[float], variance: float) -> dict[str, Any]:
    """Limits of a layer at each rate, and what successive cancellation loses at high rate in each order.

    >>> found = layer_limits(np.diag([4.0, 1.0]), [2.0], 1.0)
    >>> found["condition"], round(found["cancellation"][0]["spread_loss"], 4)
    (4.0, 0.161)
    """
    spectrum = layer_spectrum(sigma)
    rows = [
        {
            "rate": rate,
            "distortion": waterfill_product(variance, spectrum, rate=rate).distortion,
            "high_rate_distortion": high_rate_distortion(sigma, rate, variance) or None,  # none if singular
        }
        for rate in rates
    ]
    reversed_order = np.arange(len(sigma))[::-1].copy()
    orders = {"natural": "natural", "reversed (GPTQ)": reversed_order, "pivoted": "pivoted"}
    return {
        "columns": len(sigma),
        "variance": variance,
        "mean_eigenvalue": float(spectrum.mean()),
        "condition": float(spectrum[-1] / spectrum[0]) if spectrum[0] > 0 else None,
        "rates": rows,
        "cancellation": [_cancellation(sigma, name, order) for name, order in orders.items()],
        "eigenvalues": spectrum[::-1].tolist(),
    }


def _cancellation(sigma: np.ndarray, name: str, order: Any) -> dict[str, Any]:
    pivots = ldl(sigma, order=order).pivots
    live = pivots[pivots > 0]
    loss = limits.cancellation_loss(live)
    return {
        "order": name,
        "idle_columns": int(pivots.size - live.size),
        "spread_loss": loss - limits.CUBIC_GAP,
        "loss": loss,
        "pivots": pivots.tolist(),
    }


def _load(path: Path) -> np.ndarray:
    try:
        matrix = np.load(path, allow_pickle=False)
    except (ValueError, EOFError):
        msg = f"{path} is not an .npy file of numbers; write it with numpy.save"
        raise InvalidInputError(msg) from None
    if not isinstance(matrix, np.ndarray) or matrix.ndim != 2 or not np.issubdtype(matrix.dtype, np.number):
        msg = f"{path} does not hold one matrix of numbers; write E[x xᵀ] with numpy.save"
        raise InvalidInputError(msg)
    sigma = check_second_moment(matrix.astype(np.result_type(matrix.dtype, np.float32)))
    if not np.any(sigma):
        msg = f"the matrix in {path} is zero: there is nothing to code"
        raise InvalidInputError(msg)
    return sigma


def _print_gaussian(found: dict[str, Any]) -> None:
    rows = [
        (
            f"{row['rate']:g}",
            number(row["distortion"], ".4e"),
            number(row["scalar_distortion"], ".4e"),
            number(row["scalar_gap"]),
            number(row["absmax_levels"], "d"),
            number(row["absmax_rate"], ".3f"),
            number(row["absmax_distortion"], ".4e"),
            number(row["absmax_gap"]),
        )
        for row in found["rates"]
    ]
    headings = ("rate", "D(R)", "scalar D", "scalar gap", "INT levels", "INT rate", "INT D", "INT gap")
    caption = (
        f"scalar: uniform cells, shrunk, ideal entropy coder; INT: absmax with a {SCALE_BITS}-bit scale per {GROUP}; "
        "gap: bits above R(D)"
    )
    print_table(f"Gaussian weights of variance {found['variance']:g}", headings, rows, caption)
    cells = [(row["cell"], f"{row['second_moment']:.6f}", number(row["gap"])) for row in found["space_filling"]]
    print_table("Cells at high rate", ("cell", "second moment", "gap"), cells)


def _print_layer(found: dict[str, Any]) -> None:
    rows = [
        (f"{row['rate']:g}", number(row["distortion"], ".4e"), number(row["high_rate_distortion"], ".4e"))
        for row in found["rates"]
    ]
    title = f"Layer of {found['columns']} columns, weights of variance {found['variance']:g}"
    caption = f"condition of sigma: {number(found['condition'], '.3g')}"
    print_table(title, ("rate", "D(R), waterfilling", "high-rate form"), rows, caption)
    orders = [
        (row["order"], number(row["spread_loss"]), number(row["loss"]), str(row["idle_columns"]))
        for row in found["cancellation"]
    ]
    print_table(
        "Successive cancellation with one step for all columns, at high rate",
        ("order", "½ log2(AM/GM of pivots)", "with the cubic cell", "columns without rate"),
        orders,
        f"steps that follow the pivots (WaterSIC) lose {limits.CUBIC_GAP:.4f} in every order",
    )
