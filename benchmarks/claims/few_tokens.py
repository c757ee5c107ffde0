"""KL of the embedded model against the number of calibration tokens, at the bytes of INT3 round-to-nearest.

    python benchmarks/claims/few_tokens.py

One window up to 256 tokens, then windows of 256; the widest layer has 576 columns. Steps of round-to-nearest are of
least error, weighted by the diagonal of the second moment, so that tokens matter to it too. "plain mean" gives the
loop the second moment as it was measured, without shrinking it. KL is that of 24 windows of the held-out text. From a
few tokens round-to-nearest and gptq differ by less than the choice of tokens matters: five draws of these.
"""

import functools
import itertools
import sys
import tempfile
import warnings
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from harness import each, publish

import lattq as lq
from lattq.errors import FewTokensWarning
from lattq.llm import embedded_model, embedded_text, evaluate, quantize_model
from lattq.llm.measure import InputMoments
from lattq.llm.source import token_windows
from lattq.recipes import UNBIASED

SEED, WINDOW, COLUMNS, EVALUATION = 0, 256, 576, 24
DRAWS, FEW = 5, 16
TOKENS = (1, 2, 4, 16, 64, 256, 1024, 8 * COLUMNS)
RATE = 3.146  # of INT3 with a scale for 128 columns
TRELLIS = functools.partial(UNBIASED, quantizer=lq.quantizers.Trellis(256))
RECIPES: dict[str, tuple[Any, dict[str, Any], tuple[int, ...]]] = {
    "rtn": (lq.recipes.rtn, {"levels": 8}, TOKENS),
    "watersic": (UNBIASED, {"rate": RATE}, TOKENS),
    "watersic, plain mean": (UNBIASED, {"rate": RATE}, (256, 1024, 8 * COLUMNS)),
    "gptq": (lq.recipes.gptq, {"levels": 8}, (1, 4, 16, 64, 256, 1024, 8 * COLUMNS)),
    "watersic, trellis": (TRELLIS, {"rate": RATE}, (1, 64, 1024)),
}


def plain(self: InputMoments, name: str) -> Any:
    """The second moment as it was measured."""
    return self.moment(name).matrix


def first(tokens: int) -> Any:
    """Windows cut to so many tokens: a text has two or more, for there must be one to predict."""
    return lambda *given: token_windows(*given)[:, :tokens]


def draws(name: str, tokens: int) -> range:
    """Seeds of the calibration windows."""
    return range(SEED, SEED + (DRAWS if tokens <= FEW and name in ("rtn", "gptq") else 1))


def measure(name: str, tokens: int, seed: int) -> dict[str, Any]:
    """Quantize to disk, load, evaluate."""
    recipe, options, _ = RECIPES[name]
    warnings.simplefilter("ignore", FewTokensWarning)
    sigma = mock.patch.object(InputMoments, "sigma", plain if "plain" in name else InputMoments.sigma)
    windows = mock.patch("lattq.llm.convert.quantize.token_windows", first(tokens))
    with tempfile.TemporaryDirectory() as folder, sigma, windows:
        report = quantize_model(
            embedded_model(),
            f"{folder}/out",
            calibration_text=embedded_text("calibration"),
            recipe=recipe,
            window=min(max(tokens, 2), WINDOW),
            samples=max(1, tokens // WINDOW),
            seed=seed,
            **options,
        )
        found = evaluate(f"{folder}/out", embedded_text("evaluation"), reference=embedded_model(), samples=EVALUATION)
    row = {"recipe": name, "tokens": tokens, "seed": seed, "rate": report.rate, "gap": report.gap}
    row["kl"] = found.kl_bits_per_token
    print(f"{name:24s} {tokens:5d} tokens  {report.rate:.3f} bit  KL {row['kl']:.4f}", flush=True)
    return row


def excess(kl: dict[tuple[str, int, int], float], name: str, tokens: int) -> float:
    """KL above that of round-to-nearest from the same tokens: the mean, less two standard errors, of all draws."""
    seeds = draws(name, tokens)
    above = np.array([kl[name, tokens, seed] - kl["rtn", tokens, seed] for seed in seeds])
    return float(above.mean() - (2 * above.std(ddof=1) / len(seeds) ** 0.5 if len(seeds) > 1 else 0.0))


def main() -> None:
    """Sweep, judge, publish."""
    wanted = [(name, tokens) for name, (_, _, tried) in RECIPES.items() for tokens in tried]
    rows = each(2, measure, [(*one, seed) for one in wanted for seed in draws(*one)])
    kl = {(row["recipe"], row["tokens"], row["seed"]): row["kl"] for row in rows}
    shrunk, enough = [kl["watersic", tokens, SEED] for tokens in TOKENS], 8 * COLUMNS
    publish(
        "few_tokens",
        seed=SEED,
        claims={
            "watersic from any number of tokens has no more KL than round-to-nearest from any other": max(shrunk)
            <= min(found for (name, *_), found in kl.items() if name == "rtn"),
            "the trellis has no more KL than round-to-nearest from as many tokens": all(
                excess(kl, *one) <= 0 for one in wanted if one[0] == "watersic, trellis"
            ),
            "gptq has no more KL than round-to-nearest from as many tokens, to two standard errors of draws": all(
                excess(kl, *one) <= 0 for one in wanted if one[0] == "gptq"
            ),
            "more tokens never raise the KL of watersic by more than 2 %": all(
                after <= 1.02 * before for before, after in itertools.pairwise(shrunk)
            ),
            "at 8 tokens a column the plain mean is not 1 % better": kl["watersic", enough, SEED]
            <= 1.01 * kl["watersic, plain mean", enough, SEED],
        },
        rows=rows,
    )


if __name__ == "__main__":
    main()
