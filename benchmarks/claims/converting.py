"""What it costs to meet a rate, of a layer and of a model, beside one run at a given step and an older build.

    python benchmarks/claims/converting.py OTHER

OTHER is a checkout of the build to compare with. Layers are those of the embedded model and Gaussian ones: the time of
`at_rate` is over that of `quantize` at about its step, bytes included. The model is converted with the same parts in
both builds: a one-sided trellis of 256 states behind quantized blocks, at equal slope. Times are those of the processor
on one thread, the least of a few runs; KL is that of the embedded novel, in bits per token.
"""

import functools
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
from harness import builds_in_turns, fastest, publish

SEED, ROUNDS, RATES, RATE, SHAPES = 0, 2, (2.0, 3.0, 4.0), 3.0, ((512, 512), (1024, 1024), (1536, 576), (2048, 2048))


def recipes() -> dict[str, Any]:
    """A cube with sweeps, and a trellis."""
    import lattq as lq

    trellis = functools.partial(lq.recipes.watersic, quantizer=lq.quantizers.Trellis(states=256))
    return {"watersic": lq.recipes.watersic, "trellis": trellis}


def layers() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Weights and second moments: of a block of the embedded model, and Gaussian ones whose spectrum falls."""
    import torch
    import transformers

    from lattq.llm import embedded_model, embedded_text

    model = transformers.AutoModelForCausalLM.from_pretrained(embedded_model(), dtype=torch.float32)
    tokenizer = transformers.AutoTokenizer.from_pretrained(embedded_model())
    tokens = tokenizer(embedded_text("calibration"), return_tensors="pt").input_ids[0][: 64 * 128].reshape(64, 128)
    found: dict[str, Any] = {}
    places = {name: one for name, one in model.named_modules() if ".layers.1." in name and hasattr(one, "in_features")}

    def keep(name: str, module: Any, inputs: Any) -> None:
        x = inputs[0].detach().reshape(-1, module.in_features).double().numpy()
        found[name] = (module.weight.detach().numpy(), x.T @ x / len(x))

    for name, module in places.items():
        module.register_forward_pre_hook(functools.partial(keep, name))
    with torch.no_grad():
        model(tokens)
    for rows, columns in SHAPES:
        rng = np.random.default_rng(SEED)
        basis = np.linalg.qr(rng.standard_normal((columns, columns)))[0]
        sigma = (basis * np.exp(-5 * np.arange(columns) / columns)) @ basis.T
        weight = rng.standard_normal((rows, columns)).astype(np.float32)
        found[f"Gaussian {rows} x {columns}"] = weight, (sigma + sigma.T) / 2
    return found


def encoded(make: Callable[..., Any], *given: Any) -> bytes:
    """The bytes of a result."""
    return make(*given).to_bytes()


def of_layers() -> dict[str, float]:
    """Time of `at_rate` over that of one run at about its step, by layer, recipe and rate."""
    import lattq as lq
    from lattq._rate_curve import RateCurve

    found = {}
    for name, (weight, sigma) in layers().items():
        for kind, recipe in recipes().items():
            for rate in RATES:
                step = RateCurve.of(weight, lq.Metric(sigma), recipe(1.0)).step(rate)
                once = fastest(functools.partial(encoded, lq.quantize, weight, sigma, recipe(step)), 2)
                search = fastest(functools.partial(encoded, lq.at_rate, rate, recipe, weight, sigma), 2)
                found[f"{name}, {kind}, {rate:g} bits"] = search / once
    return found


def of_model() -> dict[str, float]:
    """Times of a conversion at a rate and at the step that it found, its rate, and its KL."""
    import torch

    import lattq as lq
    from lattq.llm import embedded_model, embedded_text, evaluate, quantize_model

    torch.set_num_threads(1)
    trellis = functools.partial(lq.recipes.UNBIASED, quantizer=lq.quantizers.Trellis(states=256))
    given: dict[str, Any] = {"calibration_text": embedded_text("calibration"), "recipe": trellis, "allocation": "loss"}

    def convert(folder: str, **setting: Any) -> tuple[float, Any]:
        start = time.process_time()
        report = quantize_model(embedded_model(), folder, **given, **setting)
        return time.process_time() - start, report

    with tempfile.TemporaryDirectory() as home:
        seconds, report = convert(f"{home}/rate", rate=RATE)
        once, _ = convert(f"{home}/step", step=report.value)
        kl = evaluate(f"{home}/rate", embedded_text("evaluation"), reference=embedded_model()).kl_bits_per_token
    return {"seconds": seconds, "at a step": once, "rate": report.rate, "kl": float(kl or 0.0)}


def best(rounds: list[dict[str, float]]) -> dict[str, float]:
    """The least of each figure; rate and KL are the same each time."""
    return {key: min(one[key] for one in rounds) for key in rounds[0]}


def main(other: Path) -> None:
    """Measure both builds in turns, then the layers, and publish."""
    here, before = map(best, builds_in_turns(__file__, other, ROUNDS).values())
    report(here, before, of_layers())


def report(here: dict[str, float], before: dict[str, float], ratios: dict[str, float]) -> None:
    """Judge and publish."""
    mean = float(np.mean(list(ratios.values())))
    claims = {
        "a model at a rate takes at most 1.35 of one at a step": here["seconds"] <= 1.35 * here["at a step"],
        "at most half of the older build's time": 2 * here["seconds"] <= before["seconds"],
        "its KL is at most 1 % larger": here["kl"] <= 1.01 * before["kl"],
        "it meets the rate": abs(here["rate"] - RATE) <= 0.005,
        "a layer at a rate takes at most 1.5 of one at a step, on the mean": mean <= 1.5,
    }
    publish("converting", seed=SEED, claims=claims, here=here, before=before, layers=ratios, mean=mean)


if __name__ == "__main__":
    if sys.argv[1] == "figures":
        print(json.dumps(of_model()))
    else:
        main(Path(sys.argv[1]))
