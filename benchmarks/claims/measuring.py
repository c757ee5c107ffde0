"""Statistics of a model: what they and the loop that uses them cost, that they merge, and which factors are best.

    python benchmarks/claims/measuring.py [--only PART ...]

Times are of the process on one core, beside those of plain forward passes over the same windows one by one; peak memory
is that of a process of its own, beside one that only runs the model. The loop quantizes 2048 x 2048 weights, checks of
the metric included, with G in blocks of 512 rows (as it is measured) or whole, beside none.

Factors are judged by theory (16.4): what a loop at high rate gains in bits over G = I, by the scores of tokens that the
factors were not measured on, of the same kind of text and of another; labels are drawn anew. By noise of the covariance
that such a loop leaves, on all layers at once, of the power of some rates: the ratio of the divergence to that with
G = I. And by the KL of the embedded model quantized with them at three bits.
"""

import argparse
import itertools
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch
import transformers
from harness import RESULTS, models, publish

import lattq as lq
from lattq.llm import Statistics, embedded_model, embedded_text, evaluate, measure_model, quantize_model
from lattq.llm.measure.gradients import differentiate
from lattq.llm.measure.ledger import Arena
from lattq.llm.measure.model import measure_windows
from lattq.llm.measure.score import Score, pooling_of
from lattq.llm.source import (
    choose_modules,
    fixed_threads,
    load_model,
    load_tokenizer,
    longest_window,
    run,
    token_windows,
)

SEED, HELD, WINDOWS = 0, 10, (4, 32, 144)
LIMIT = 6.0  # forward passes
RATES = (2.0, 3.0, 4.0)
WIDE: dict[str, Any] = {
    "hidden_size": 1024,
    "intermediate_size": 2816,
    "num_hidden_layers": 8,
    "num_attention_heads": 16,
}
WIDE |= {"num_key_value_heads": 8, "max_position_embeddings": 512, "vocab_size": 2048}
SIZE, SLOWER = 2048, 2.2
CELLS: dict[str, dict[str, Any]] = {
    "trellis, 256 states": {},
    "scalar, no sweeps": {"quantizer": lq.quantizers.Uniform(), "sweeps": 0},
    "scalar, two sweeps": {"quantizer": lq.quantizers.Uniform(), "sweeps": 2},
}
DAMPING = {"one-sided": None, "0.03": 0.03, "0.1": 0.1, "0.3": 0.3, "1": 1.0}


def model_of(name: str) -> tuple[Any, torch.Tensor]:
    """A model and windows for it."""
    text = embedded_text("calibration")
    if name == "Llama, 1024 wide":
        torch.manual_seed(SEED)
        model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**WIDE)).eval()
        return model, token_windows(load_tokenizer(embedded_model()), text, 512, 6)
    source = models()[name]
    model = load_model(source, torch.float32)
    return model, token_windows(load_tokenizer(source), text, longest_window(model), 8 if name == "MiniLM" else 24)


def forward(model: Any, windows: torch.Tensor) -> None:
    """Plain passes, window by window."""
    with torch.no_grad():
        for window in windows.split(1):
            run(model, window)


def cost(name: str, way: str) -> dict[str, Any]:
    """Times and peak memory of one way, in this process."""
    model, windows = model_of(name)
    layers = choose_modules(model)
    pooling = pooling_of(models()[name]) if name == "MiniLM" else None
    with fixed_threads(1), tempfile.TemporaryDirectory() as folder:

        def measure(some: torch.Tensor) -> None:
            room = Arena(Path(folder), layers, 512)
            measure_windows(model, layers, some, Score(pooling=pooling), room=room)

        act = forward if way == "forward" else lambda model, some: measure(some)
        forward(model, windows[:1])
        act(model, windows[:1])
        seconds = []
        for one in (forward, act):
            start = time.process_time()
            one(model, windows)
            seconds.append(time.process_time() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"forward": seconds[0], "seconds": seconds[1], "megabytes": peak}


def apart(name: str, way: str) -> dict[str, Any]:
    """`cost` in a process of its own."""
    command = [sys.executable, __file__, "--cost", name, way]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1])


def second_moment(n: int, rng: np.random.Generator) -> np.ndarray:
    """Of 2 n correlated samples."""
    samples = rng.normal(size=(2 * n, n)) * np.exp(0.5 * rng.normal(size=n))
    samples = samples + 0.3 * samples @ rng.normal(size=(n, n)) / n**0.5
    return samples.T @ samples / len(samples)


def loops() -> list[dict[str, Any]]:
    """Time of one side and of both, by cell and height of the blocks of G."""
    rng, rows = np.random.default_rng(SEED), []
    weight = rng.normal(size=(SIZE, SIZE)).astype(np.float32)
    sigma, outputs = (second_moment(SIZE, rng) for _ in range(2))
    for height in (512, SIZE):
        blocks = np.stack([outputs[k : k + height, k : k + height] for k in range(0, SIZE, height)])
        for name, options in CELLS.items():
            scheme = lq.recipes.two_sided(0.2, **options)
            seconds = []
            for sides in (sigma, None), (sigma, blocks):
                lq.quantize(weight[:height], lq.Metric(sigma, blocks[:1]), scheme)  # compiles
                start = time.process_time()
                lq.quantize(weight, lq.Metric(*sides), scheme)
                seconds.append(time.process_time() - start)
            rows.append({"cell": name, "height": height, "one": seconds[0], "two": seconds[1]})
            rows[-1]["ratio"] = seconds[1] / seconds[0]
            print(rows[-1], flush=True)
    return rows


def merges() -> bool:
    """Whether parts in a random order and grouping are the bytes of the whole."""
    rng = np.random.default_rng(SEED)
    text, options = embedded_text("calibration"), {"window": 64, "modules": ["model.layers.1.mlp.down_proj"]}
    cuts = [0, *sorted(rng.integers(1, 60_000, 4)), 60_000]
    pieces = [text[a:b] for a, b in itertools.pairwise(cuts)]
    parts = [measure_model(embedded_model(), calibration_text=one, **options) for one in pieces]
    found = set()
    for _ in range(5):
        some = [parts[i] for i in rng.permutation(len(parts))]
        while len(some) > 1:
            i = int(rng.integers(len(some) - 1))
            some[i : i + 2] = [some[i].merge(some[i + 1])]
        found.add(some[0].digest())
    return len(found) == 1


class Pairs:
    """Inputs and scores of the same tokens, as they come."""

    def __init__(self) -> None:
        self.inputs: dict[str, list[np.ndarray]] = {}
        self.scores: dict[str, list[np.ndarray]] = {}

    def __call__(self, name: str, x: torch.Tensor, y: torch.Tensor) -> None:
        self.inputs.setdefault(name, []).append(x.detach()[0].double().numpy())
        y.register_hook(lambda g: self.scores.setdefault(name, []).append(g[0].double().numpy()))


def gains(statistics: Statistics, pairs: Pairs) -> dict[str, float]:
    """Bits over G = I, by the damping of G; means over weights."""
    total = dict.fromkeys(DAMPING, 0.0)
    for name, layer in statistics.layers.items():
        sigma, information = damped(statistics.sigma(name), 0.01), statistics.information(name)
        x, g = np.concatenate(pairs.inputs[name]), np.concatenate(pairs.scores[name])
        v = np.einsum("ti,ti->t", x @ np.linalg.inv(sigma), x)
        blocks = g.reshape(len(g), *information.shape[:2]).transpose(1, 0, 2)
        for words, damping in DAMPING.items():
            G = np.eye(information.shape[1])[None] if damping is None else damped(information, damping)
            w = np.einsum("gti,gti->t", blocks @ np.linalg.inv(G), blocks)
            spread = np.linalg.slogdet(G)[1].mean() / information.shape[1]
            spread += np.linalg.slogdet(sigma)[1] / len(sigma)
            cost = 0.5 * (np.log2(np.mean(v * w)) + spread / np.log(2))
            total[words] -= cost * layer.shape[0] * layer.shape[1]
    return {
        words: one / sum(a.shape[0] * a.shape[1] for a in statistics.layers.values()) for words, one in total.items()
    }


def damped(matrix: np.ndarray, share: float) -> np.ndarray:
    """With a share of the mean of the diagonal."""
    size = matrix.shape[-1]
    return matrix + share * np.trace(matrix, axis1=-2, axis2=-1).mean() / size * np.eye(size)


def factors() -> list[dict[str, Any]]:
    """Plain and matched, from several numbers of windows, by both kinds of text."""
    source, text = embedded_model(), embedded_text("calibration")
    cut = len(text) // 5
    model, tokenizer = load_model(source, torch.float32), load_tokenizer(source)
    layers, judges = choose_modules(model), {}
    for kind, given in (("same kind", text[:cut]), ("another kind", embedded_text("evaluation"))):
        judges[kind] = Pairs()
        windows = token_windows(tokenizer, given, 256, HELD, SEED)
        quiet: Any = {"begin": lambda *about: None, "advance": lambda name: None}
        differentiate(model, layers, windows.split(1), Score(SEED + 1), judges[kind], **quiet)
    rows = []
    for windows in WINDOWS:
        base = None
        reference: dict[str, float] = {}
        for rounds in range(3):
            base = measure_model(source, calibration_text=text[cut:], samples=windows, seed=SEED, matched=base)
            for kind, pairs in judges.items():
                found = gains(base, pairs)
                one_sided = reference.setdefault(kind, found["one-sided"])
                bits = {words: one - one_sided for words, one in found.items()}
                rows.append({"windows": windows, "rounds": rounds, "text": kind, "bits": bits})
                print(rows[-1], flush=True)
    return rows


def noisy() -> list[dict[str, Any]]:
    """Divergence of the model with noise in all layers, over that of one-sided noise of the same rate."""
    source, text = embedded_model(), embedded_text("calibration")
    cut = len(text) // 5
    model, tokenizer = load_model(source, torch.float32), load_tokenizer(source)
    layers = choose_modules(model)
    own = {name: one.weight.clone() for name, one in layers.items()}
    given = {"same kind": text[:cut], "another kind": embedded_text("evaluation")}
    judges = {kind: token_windows(tokenizer, one, 256, HELD, SEED) for kind, one in given.items()}
    before = {kind: predictions(model, windows) for kind, windows in judges.items()}
    rng = np.random.default_rng(SEED)
    noise = {name: rng.standard_normal(one.shape) for name, one in layers.items()}
    rows, reference, base = [], dict[tuple[str, float], float](), None
    for rounds in range(2):
        base = measure_model(source, calibration_text=text[cut:], seed=SEED, matched=base)
        for words, damping in DAMPING.items():
            roots = {name: root_of(base, name, damping) for name in layers}
            weights = {name: one.numel() for name, one in own.items()}
            level = sum(weights[name] * (np.log2(float(own[name].std())) + roots[name][2]) for name in layers)
            for rate in RATES:
                size = 2 ** (level / sum(weights.values()) - rate)
                for name, (left, right, _) in roots.items():
                    blocks = noise[name].reshape(len(left), -1, noise[name].shape[1])
                    error = size * (left @ blocks @ right).reshape(noise[name].shape)
                    layers[name].write(own[name] + torch.from_numpy(error).float())
                for kind, windows in judges.items():
                    moved = before[kind] - predictions(model, windows)
                    found = float((before[kind].exp() * moved).sum(-1).mean())
                    ratio = found / reference.setdefault((kind, rate), found)
                    rows.append({"rounds": rounds, "damping": words, "rate": rate, "text": kind, "ratio": ratio})
            print(rows[-2 * len(RATES) :], flush=True)
    return rows


def root_of(statistics: Statistics, name: str, damping: float | None) -> tuple[np.ndarray, np.ndarray, float]:
    """Inverse roots of G and Σ, and the mean logarithm of their roots' eigenvalues in bits."""
    sigma, information = damped(statistics.sigma(name), 0.01), statistics.information(name)
    if damping is None:
        size = information.shape[1]
        mean = np.trace(information, axis1=1, axis2=2).mean() / size
        information = np.broadcast_to(mean * np.eye(size), information.shape)
    else:
        information = damped(information, damping)
    found, logs = [], 0.0
    for one in (information, sigma):
        values, vectors = np.linalg.eigh(one)
        found.append((vectors / np.sqrt(values)[..., None, :]) @ np.swapaxes(vectors, -1, -2))
        logs += 0.5 * float(np.log2(values).mean())
    return found[0], found[1], logs


def predictions(model: Any, windows: torch.Tensor) -> torch.Tensor:
    """Log-probabilities of all tokens."""
    with torch.no_grad():
        return torch.cat([torch.log_softmax(run(model, one).logits.double(), -1) for one in windows.split(1)])


def in_the_loop() -> list[dict[str, Any]]:
    """KL of the embedded model under `two_sided` at three bits, from statistics measured in several ways."""
    source, text, rows = embedded_model(), embedded_text("calibration"), []
    plain = measure_model(source, calibration_text=text, seed=SEED, draws=2)
    ways = {
        "plain": plain,
        "plain, four draws": measure_model(source, calibration_text=text, seed=SEED, draws=4),
        "matched": measure_model(source, calibration_text=text, seed=SEED, draws=2, matched=plain),
        "attention": measure_model(source, calibration_text=text, seed=SEED, draws=2, attention=True),
    }
    for name, statistics in ways.items():
        with tempfile.TemporaryDirectory() as folder:
            report = quantize_model(source, f"{folder}/model", statistics=statistics, rate=3.0)
            found = evaluate(f"{folder}/model", embedded_text("evaluation"), reference=source)
        rows.append({"factors": name, "rate": report.rate, "kl": found.kl_bits_per_token})
        print(rows[-1], flush=True)
    return rows


def costs() -> dict[str, Any]:
    """Time and memory of statistics and of forward passes, by model."""
    found = {}
    for name in ("embedded", "MiniLM", "Llama, 1024 wide"):
        plain, full = apart(name, "forward"), apart(name, "statistics")
        found[name] = {"ratio": full["seconds"] / full["forward"], "forward": full["forward"]}
        found[name] |= {"megabytes": full["megabytes"], "megabytes of the model": plain["megabytes"]}
        print(name, found[name], flush=True)
    return found


PARTS: dict[str, Callable[[], Any]] = {
    "costs": costs,
    "loop": loops,
    "merges": merges,
    "factors": factors,
    "noise": noisy,
    "in_the_loop": in_the_loop,
}


def main(only: list[str]) -> None:
    """Measure some parts and publish all that is known."""
    path = RESULTS / "measuring.json"
    known = json.loads(path.read_text()) if path.exists() else {}
    found = {name: known[name] for name in PARTS if name in known} | {name: PARTS[name]() for name in only}
    best = {(row["windows"], row["rounds"], row["text"]): row["bits"]["0.3"] for row in found["factors"]}
    most = max(WINDOWS)
    claims = {
        f"statistics take at most {LIMIT:g} times the forward pass": all(
            one["ratio"] <= LIMIT for one in found["costs"].values()
        ),
        f"both sides with a trellis take at most {SLOWER:g} times one side's time, G in blocks of 512": all(
            one["ratio"] <= SLOWER for one in found["loop"] if one["height"] == 512 and "trellis" in one["cell"]
        ),
        "parts merge to the same bytes in any order and grouping": found["merges"],
        "a round of matching is not worse on either text": all(
            best[most, 1, kind] > best[most, 0, kind] - 0.005 for kind in ("same kind", "another kind")
        ),
    }
    publish("measuring", seed=SEED, claims=claims, **found)


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--cost", nargs=2, metavar=("MODEL", "WAY"), help="one of `costs`, in a process of its own")
    options = parser.parse_args()
    if options.cost:
        print(json.dumps(cost(*options.cost)))
    else:
        main(options.only)
