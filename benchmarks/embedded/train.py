"""Train the small causal language model that ships inside the package.

    python benchmarks/embedded/train.py --corpus DIR --out DIR --minutes 45

The corpus is a folder of plain-text novels, one paragraph per line. All but one are trained on; the held-out novel is
only measured. The model is a Llama of about 2.6 million parameters with a byte-level BPE tokenizer of 2048 tokens.
"""

import argparse
import copy
import json
import math
import os
import platform
import shutil
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path

import numpy as np
import tokenizers
import torch
import transformers
from corpus import batches, encode, excerpt, join, read_corpus, train_tokenizer
from torch.nn.functional import cross_entropy


@dataclass(frozen=True)
class Recipe:
    """Everything that shapes the model and its training, recorded beside the weights."""

    vocabulary: int = 2048
    hidden: int = 256
    intermediate: int = 576
    layers: int = 3
    heads: int = 4
    context: int = 256
    batch: int = 16
    peak_rate: float = 3e-3
    final_fraction: float = 0.05
    warmup_steps: int = 200
    weight_decay: float = 0.1
    betas: tuple[float, float] = (0.9, 0.95)
    clip: float = 1.0
    seed: int = 0
    report_every: int = 150


# Model


def build_model(recipe: Recipe) -> transformers.LlamaForCausalLM:
    """Build the untrained model."""
    torch.manual_seed(recipe.seed)
    config = transformers.LlamaConfig(
        vocab_size=recipe.vocabulary,
        hidden_size=recipe.hidden,
        intermediate_size=recipe.intermediate,
        num_hidden_layers=recipe.layers,
        num_attention_heads=recipe.heads,
        num_key_value_heads=recipe.heads,
        max_position_embeddings=recipe.context,
        tie_word_embeddings=True,
        bos_token_id=0,
        eos_token_id=0,
    )
    model = transformers.LlamaForCausalLM(config)
    model.set_attn_implementation("eager")  # faster than the fused kernel at this size on a CPU
    return model


def build_optimizer(model: torch.nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """AdamW; norms are not decayed."""
    parameters = list(model.parameters())
    groups = [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": recipe.weight_decay},
        {"params": [p for p in parameters if p.ndim < 2], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW(groups, lr=recipe.peak_rate, betas=recipe.betas, fused=True)


def training_loss(model: torch.nn.Module, windows: torch.Tensor) -> torch.Tensor:
    """Mean negative log-likelihood, in nats per token, with bfloat16 products."""
    with torch.autocast("cpu", torch.bfloat16):
        logits = model(windows[:, :-1], use_cache=False).logits
    return cross_entropy(logits.flatten(0, 1).float(), windows[:, 1:].flatten())


@torch.no_grad()
def measure(model: torch.nn.Module, tokens: np.ndarray, context: int) -> float:
    """Loss in nats per token over disjoint windows of `context` tokens; a window's first token is not predicted."""
    windows = torch.from_numpy(tokens[: len(tokens) // context * context].reshape(-1, context))
    total = 0.0
    for part in windows.split(16):
        logits = model(part, use_cache=False).logits[:, :-1].float()
        total += cross_entropy(logits.flatten(0, 1), part[:, 1:].flatten(), reduction="sum").item()
    return total / (len(windows) * (context - 1))


def learning_rate(progress: float, step: int, recipe: Recipe) -> float:
    """Linear warm-up in steps, then a cosine in the fraction of the training that is done."""
    cosine = 0.5 * (1 + math.cos(math.pi * min(progress, 1.0)))
    fraction = recipe.final_fraction + (1 - recipe.final_fraction) * cosine
    return recipe.peak_rate * fraction * min(1.0, (step + 1) / recipe.warmup_steps)


# Training


@dataclass
class Run:
    """A training in progress."""

    model: transformers.LlamaForCausalLM
    optimizer: torch.optim.Optimizer
    recipe: Recipe
    step: int = 0
    seconds: float = 0.0
    curve: list[dict] = field(default_factory=list)

    def save(self, path: Path) -> None:
        """Write a checkpoint atomically."""
        path.parent.mkdir(parents=True, exist_ok=True)
        state = {"model": self.model.state_dict(), "optimizer": self.optimizer.state_dict()}
        state |= {"step": self.step, "seconds": self.seconds, "curve": self.curve}
        torch.save(state, path.with_suffix(".new"))
        os.replace(path.with_suffix(".new"), path)

    def load(self, path: Path) -> None:
        """Continue from a checkpoint."""
        state = torch.load(path)
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step, self.seconds, self.curve = state["step"], state["seconds"], state["curve"]


def train(
    run: Run, tokens: np.ndarray, held_out: np.ndarray, progress: Callable[[Run], float], report: Callable[[Run], None]
) -> None:
    """Train until `progress` reaches one, reporting now and then."""
    recipe, losses = run.recipe, []
    loss_of = torch.compile(training_loss)
    started = time.monotonic() - run.seconds
    for windows in batches(tokens, recipe.context + 1, recipe.batch, recipe.seed, run.step):
        rate = learning_rate(progress(run), run.step, recipe)
        for group in run.optimizer.param_groups:
            group["lr"] = rate
        loss = loss_of(run.model, windows)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(run.model.parameters(), recipe.clip)
        run.optimizer.step()
        run.optimizer.zero_grad()
        losses.append(loss.item())
        run.step += 1
        run.seconds = time.monotonic() - started
        done = progress(run) >= 1
        if done or run.step % recipe.report_every == 0:
            point = {"step": run.step, "tokens": run.step * recipe.batch * recipe.context}
            point |= {"seconds": round(run.seconds, 1), "rate": float(f"{rate:.4g}")}
            point |= {"train": round(float(np.mean(losses)), 4)}
            point |= {"held_out": round(measure(run.model, held_out, recipe.context), 4)}
            run.curve.append(point)
            losses.clear()
            print(json.dumps(point), flush=True)
            report(run)
        if done:
            return


# Output


def publish(out: Path, files: dict[str, str], model: transformers.LlamaForCausalLM, tokenizer, final: dict) -> None:
    """Write the package data into a folder beside `out`, then move each file into place."""
    fresh = out.with_name(out.name + ".partial")
    fresh.mkdir(parents=True, exist_ok=True)
    copy.deepcopy(model).bfloat16().save_pretrained(fresh)
    tokenizer.save_pretrained(fresh)
    for name, text in files.items():
        (fresh / name).write_text(text, encoding="utf-8")
    (fresh / "training.json").write_text(json.dumps(final, indent=1) + "\n", encoding="utf-8")
    out.mkdir(parents=True, exist_ok=True)
    for path in fresh.iterdir():
        os.replace(path, out / path.name)
    shutil.rmtree(fresh)


def summary(run: Run, tokens: dict[str, np.ndarray], files: dict[str, str]) -> dict:
    """Measure the stored (bfloat16) weights on both excerpts and collect what made them."""
    stored = copy.deepcopy(run.model)
    stored.load_state_dict({k: v.bfloat16().float() for k, v in run.model.state_dict().items()})
    losses = {name: measure(stored, tokens[name], run.recipe.context) for name in files}
    per_byte = {name: len(tokens[name]) / len(text.encode()) for name, text in files.items()}
    versions = {package.__name__: package.__version__ for package in (np, torch, tokenizers, transformers)}
    return {
        "recipe": asdict(run.recipe),
        "parameters": sum(p.numel() for p in stored.parameters()),
        "corpus_tokens": len(tokens["training"]),
        "steps": run.step,
        "tokens_seen": run.step * run.recipe.batch * run.recipe.context,
        "seconds": round(run.seconds, 1),
        "versions": versions | {"python": platform.python_version()},
        "loss_nats_per_token": losses,
        "perplexity_per_token": {name: math.exp(loss) for name, loss in losses.items()},
        "bits_per_byte": {name: loss / math.log(2) * per_byte[name] for name, loss in losses.items()},
        "curve": run.curve,
    }


def plot(curve: list[dict], path: Path) -> None:
    """Draw the loss curve."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    millions = [point["tokens"] / 1e6 for point in curve]
    axes.plot(millions, [point["train"] for point in curve], label="training novels")
    axes.plot(millions, [point["held_out"] for point in curve], label="held-out novel")
    axes.set(xlabel="tokens seen (millions)", ylabel="loss (nats per token)")
    axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Train the small causal language model that ships inside the package.")
    parser.add_argument("--corpus", type=Path, required=True, help="folder of novels, *.txt")
    parser.add_argument("--out", type=Path, required=True, help="folder for the model and its excerpts")
    length = parser.add_mutually_exclusive_group()
    length.add_argument("--minutes", type=float, default=45.0, help="train for this wall-clock time")
    length.add_argument("--steps", type=int, help="train for this number of steps: the same everywhere, up to rounding")
    parser.add_argument("--checkpoint", type=Path, help="file to write checkpoints to and to resume from")
    parser.add_argument("--figure", type=Path, help="file for the loss curve, e.g. benchmarks/results/training.png")
    parser.add_argument("--threads", type=int, default=2)
    return parser.parse_args()


def main() -> None:
    """Train, publish a usable model every few minutes and the final one at the end."""
    options, recipe = arguments(), Recipe()
    torch.set_num_threads(options.threads)
    novels, held_out = read_corpus(options.corpus)
    files = {
        "calibration.txt": "".join(excerpt(text, 150_000 // len(novels)) for text in novels.values()),
        "evaluation.txt": excerpt(held_out, 120_000),
    }
    tokenizer = train_tokenizer(novels, recipe.vocabulary)
    tokens = {name: encode(tokenizer, text) for name, text in (files | {"training": join(novels)}).items()}
    model = build_model(recipe)
    run = Run(model, build_optimizer(model, recipe), recipe)
    if options.checkpoint and options.checkpoint.exists():
        run.load(options.checkpoint)
    published = run.seconds

    def progress(run: Run) -> float:
        return run.step / options.steps if options.steps else run.seconds / (60 * options.minutes)

    def report(run: Run) -> None:
        nonlocal published
        if options.checkpoint:
            run.save(options.checkpoint)
        if progress(run) >= 1 or run.seconds - published > 300:
            published = run.seconds
            publish(options.out, files, model, tokenizer, summary(run, tokens, files))

    train(run, tokens["training"], tokens["evaluation.txt"], progress, report)
    if options.figure:
        plot(run.curve, options.figure)


if __name__ == "__main__":
    main()
