"""Figures of the command line. matplotlib is imported when one is drawn."""

from pathlib import Path
from typing import Any

import numpy as np

from lattq.errors import InvalidInputError, LattqError

__all__ = ["check", "codes", "conversion", "gaussian", "layer", "recipes"]

SUFFIXES = (".png", ".pdf", ".svg")
MANY_LAYERS = 60
COLOURS = {
    "reference": "black",
    "rtn": "tab:gray",
    "gptq": "tab:orange",
    "watersic": "tab:blue",
    "trellis": "tab:green",
    "two_sided": "tab:red",
}
MARKERS = {"rtn": "s", "gptq": "^", "watersic": "o", "trellis": "D", "two_sided": "*"}


def available() -> bool:
    """Whether matplotlib is installed."""
    try:
        import matplotlib.figure  # noqa: F401
    except ModuleNotFoundError:
        return False
    return True


def check(path: Path) -> None:
    """Raise before any work is done if a figure cannot be drawn or has no place."""
    if path.suffix.lower() not in SUFFIXES:
        msg = f"`--plot` is {path}; end its name in one of {', '.join(SUFFIXES)}"
        raise InvalidInputError(msg)
    if not path.absolute().parent.is_dir():
        msg = f"`--plot` is {path}, but there is no folder {path.absolute().parent}; make it first"
        raise InvalidInputError(msg)
    if not available():
        msg = "a figure needs matplotlib: pip install lattq[plot]"
        raise LattqError(msg)


def _axes(columns: int, rows: int = 1, size: tuple[float, float] = (5.5, 4.2)) -> Any:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(size[0] * columns, size[1] * rows), layout="constrained")
    return figure, figure.subplots(rows, columns, squeeze=False).ravel()


def _label(axes: Any, x: str, y: str, title: str, *, log: bool = False) -> None:
    axes.set(xlabel=x, ylabel=y, title=title)
    if log:
        axes.set_yscale("log")
    axes.grid(alpha=0.3)
    if axes.get_legend_handles_labels()[0]:
        axes.legend()


def gaussian(found: dict[str, Any], path: Path) -> None:
    """Rate-distortion curves and gaps of `lattq bounds`."""
    figure, (left, right) = _axes(2)
    rows = sorted(found["rates"], key=lambda row: row["rate"])
    rate = [row["rate"] for row in rows]
    integers = [row for row in rows if row["absmax_rate"] is not None]
    left.plot(rate, [row["distortion"] for row in rows], color="black", label="bound D(R)")
    left.plot(rate, [row["scalar_distortion"] for row in rows], "o-", label="entropy-coded scalar")
    right.plot(rate, [row["scalar_gap"] for row in rows], "o-", label="entropy-coded scalar")
    x = [row["absmax_rate"] for row in integers]
    name = f"absmax integers, group {found['group']}"
    left.plot(x, [row["absmax_distortion"] for row in integers], "s-", label=name)
    right.plot(x, [row["absmax_gap"] for row in integers], "s-", label=name)
    for cell in found["space_filling"][:-1]:
        if cell["cell"] in ("Z", "E8", "Leech"):
            right.axhline(cell["gap"], color="gray", linewidth=0.8, linestyle=":")
            right.annotate(cell["cell"], (rate[-1], cell["gap"]), ha="right", va="bottom", color="gray", fontsize=8)
    _label(left, "bits per weight", "squared error per weight", "Gaussian weights", log=True)
    _label(right, "bits per weight", "bits above R(D)", "Gap (dotted: cells at high rate)")
    right.set_ylim(bottom=0)
    figure.savefig(path)


def layer(found: dict[str, Any], path: Path) -> None:
    """Rate-distortion curve, eigenvalues and pivots of `lattq bounds --sigma`."""
    figure, (left, right) = _axes(2)
    rows = sorted(found["rates"], key=lambda row: row["rate"])
    rate = [row["rate"] for row in rows]
    left.plot(rate, [row["distortion"] for row in rows], "o-", color="black", label="waterfilling")
    high = [row["high_rate_distortion"] for row in rows]
    if None not in high:
        left.plot(rate, high, "--", color="tab:gray", label="high-rate form")
    right.plot([value if value > 0 else np.nan for value in found["eigenvalues"]], color="black", label="eigenvalues")
    for one in found["cancellation"]:
        right.plot(np.sort([p for p in one["pivots"] if p > 0])[::-1], label=f"pivots, {one['order']}")
    _label(left, "bits per weight", "squared error per weight", f"Layer of {found['columns']} columns", log=True)
    _label(right, "rank", "value", "Spectrum and pivots", log=True)
    figure.savefig(path)


def conversion(layers: list[dict[str, Any]], path: Path) -> None:
    """Rate, Gaussian reference and gap of each layer of a quantized model."""
    figure, (upper, lower) = _axes(1, 2, (min(max(6.0, 0.3 * len(layers)), 20.0), 3.6))
    x = np.arange(len(layers))
    reference = np.array([row["reference"] if row["reference"] is not None else np.nan for row in layers])
    gap = np.array([row["gap"] if row["gap"] is not None else np.nan for row in layers])
    upper.bar(x, [row["rate"] for row in layers], color="tab:blue", label="rate")
    upper.bar(x, reference, color="tab:gray", label="Gaussian reference at its distortion")
    lower.bar(x, gap, color="tab:orange")
    _label(upper, "", "bits per weight", "Rate of each layer")
    _label(lower, "layer", "bits per weight", "Gap: rate less the Gaussian reference")
    if len(layers) <= MANY_LAYERS:
        lower.set_xticks(x, [row["name"] for row in layers], rotation=90, fontsize=6)
    upper.set_xticks([])
    figure.savefig(path)


def codes(integers: np.ndarray, entropies: np.ndarray, path: Path) -> None:
    """Histogram of the codes of one matrix, and their entropy in each column."""
    figure, (left, right) = _axes(2)
    values, counts = np.unique(integers, return_counts=True)
    left.vlines(values, 0, counts / integers.size, linewidth=2)
    right.plot(entropies, ".", markersize=3)
    _label(left, "code", "frequency", "Codes")
    left.set_ylim(bottom=0)
    _label(right, "column", "bits", "Entropy of the codes of each column")
    figure.savefig(path)


def recipes(rows: list[dict[str, Any]], curve: list[tuple[float, float]], path: Path) -> None:
    """Rate-distortion points of `lattq demo` beside the Gaussian reference, and the KL measured."""
    figure, (left, right) = _axes(2)
    left.plot(*zip(*curve, strict=True), color="black", label="reference: independent Gaussian weights")
    for name in dict.fromkeys(row["recipe"] for row in rows):
        mine = sorted((row for row in rows if row["recipe"] == name), key=lambda row: row["rate"])
        x = [row["rate"] for row in mine]
        style = {"color": COLOURS[name], "marker": MARKERS[name], "label": name}
        left.plot(x, [row["weighted_distortion"] for row in mine], **style)
        right.plot(x, [row["kl_bits_per_token"] for row in mine], **style)
    _label(left, "bits per weight, from file sizes", "weighted distortion", "Rate and distortion", log=True)
    _label(right, "bits per weight, from file sizes", "KL, bits per token", "Measured on unseen text", log=True)
    figure.savefig(path)
