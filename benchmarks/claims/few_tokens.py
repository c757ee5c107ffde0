"""KL of the embedded model against the number of calibration tokens, at the bytes of INT3 round-to-nearest.

    python benchmarks/claims/few_tokens.py

One window up to 256 tokens, then windows of 256; the widest layer has 576 columns. Round-to-nearest sees no tokens.
"plain mean" gives the loop the second moment as it was measured, without shrinking it.
"""

import functools
import itertools
import sys
import tempfile
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).parents[1]))

from harness import each, publish

import lattq as lq
from lattq.llm import embedded_model, embedded_text, evaluate
from lattq.llm.convert.stages import Conversion
from lattq.llm.convert.workspace import Workspace
from lattq.llm.measure import InputMoments
from lattq.llm.source import load_tokenizer, token_windows
from lattq.progress import stage
from lattq.recipes import UNBIASED

SEED, WINDOW, COLUMNS, EVALUATION = 0, 256, 576, 24
TOKENS = (1, 2, 4, 16, 64, 256, 1024, 8 * COLUMNS)
RATE = 3.146  # of INT3 with a scale for 128 columns
SETTINGS = {"step": None, "bits": None, "modules": None, "allocation": "loss", "seed": SEED, "propagate": True}
TRELLIS = functools.partial(UNBIASED, quantizer=lq.quantizers.Trellis(256))
RECIPES: dict[str, tuple[Any, dict[str, Any], tuple[int, ...]]] = {
    "rtn": (lq.recipes.rtn, {"rate": None, "levels": 8}, (1,)),
    "watersic": (UNBIASED, {"rate": RATE, "levels": None}, TOKENS),
    "watersic, plain mean": (UNBIASED, {"rate": RATE, "levels": None}, (256, 1024, 8 * COLUMNS)),
    "gptq": (lq.recipes.gptq, {"rate": None, "levels": 8}, (1, 4, 16, 64, 256, 1024, 8 * COLUMNS)),
    "watersic, trellis": (TRELLIS, {"rate": RATE, "levels": None}, (1, 64, 1024)),
}


def plain(self: InputMoments, name: str) -> Any:
    """The second moment as it was measured."""
    return self.moment(name).matrix


def measure(name: str, tokens: int) -> dict[str, Any]:
    """Quantize to disk, load, evaluate."""
    recipe, options, _ = RECIPES[name]
    tokenizer, text = load_tokenizer(embedded_model()), embedded_text("calibration")
    window = min(max(tokens, 2), WINDOW)
    windows = token_windows(tokenizer, text, window, max(1, tokens // WINDOW), SEED)[:, :tokens]
    settings = SETTINGS | options | {"drift": False, "recipe": name}
    sigma = plain if "plain" in name else InputMoments.sigma
    with tempfile.TemporaryDirectory() as folder, mock.patch.object(InputMoments, "sigma", sigma):
        workspace = Workspace(f"{folder}/out", settings)
        with stage("quantize the model") as work:
            report = Conversion(embedded_model(), windows, workspace, recipe, settings, 1, work).run(0.0, "5GB")
        workspace.close()
        found = evaluate(f"{folder}/out", embedded_text("evaluation"), reference=embedded_model(), samples=EVALUATION)
    row = {"recipe": name, "tokens": tokens, "rate": report.rate, "gap": report.gap, "kl": found.kl_bits_per_token}
    print(f"{name:24s} {tokens:5d} tokens  {report.rate:.3f} bit  KL {row['kl']:.4f}", flush=True)
    return row


def main() -> None:
    """Sweep, judge, publish."""
    rows = each(2, measure, [(name, tokens) for name, (_, _, tried) in RECIPES.items() for tokens in tried])
    kl = {(row["recipe"], row["tokens"]): row["kl"] for row in rows}
    nearest = kl["rtn", 1]
    shrunk, enough = [kl["watersic", tokens] for tokens in TOKENS], 8 * COLUMNS
    publish(
        "few_tokens",
        seed=SEED,
        claims={
            "watersic has no more KL than round-to-nearest from any number of tokens": max(shrunk) <= nearest,
            "so have gptq and the trellis": all(kl[key] <= nearest for key in kl if "plain" not in key[0]),
            "more tokens never raise the KL of watersic by more than 2 %": all(
                after <= 1.02 * before for before, after in itertools.pairwise(shrunk)
            ),
            "at 8 tokens a column the plain mean is not 1 % better": kl["watersic", enough]
            <= 1.01 * kl["watersic, plain mean", enough],
        },
        rows=rows,
    )


if __name__ == "__main__":
    main()
