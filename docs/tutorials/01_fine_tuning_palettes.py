# %% [markdown]
# # Fine-tuning palettes
#
# A palette of 2 bits gives all weights of a layer four values. Choosing the best four is one problem, with an exact
# solution (theory 8.5); a model whose weights are then moved, so that it works well with four values, is better still.
# This tutorial does both with the embedded language model, in half a minute on two cores.

# %%
import copy

import torch
from torch.nn.functional import kl_div, log_softmax
from torch.nn.utils import parametrize

from lattq.codebooks import PaletteDesign
from lattq.llm import SoftPalette, embedded_model, embedded_text, evaluate, harden
from lattq.llm.source.architecture import choose_modules
from lattq.llm.source.checkpoint import load_model, load_tokenizer
from lattq.llm.source.windows import token_windows

SEED, STEPS, BATCH, RATE = 0, 30, 4, 1e-3
tokenizer = load_tokenizer(embedded_model())
teacher = load_model(embedded_model(), torch.float32).requires_grad_(False)
windows = token_windows(tokenizer, embedded_text("calibration"), 256)


def perplexity(model: torch.nn.Module) -> float:
    """On the first windows of a book that the model was not trained on."""
    found = evaluate(model, embedded_text("evaluation"), tokenizer=tokenizer, samples=48)
    return found.perplexity or torch.inf


# %% [markdown]
# ## The best palettes of the weights as they are
#
# Weights of linear layers get a palette each; embeddings and norms stay as they are.


# %%
def best_palettes(bits: int) -> torch.nn.Module:
    """A copy of the model with the palettes that are nearest to its weights."""
    model = copy.deepcopy(teacher)
    for layer in choose_modules(model).values():
        palette = PaletteDesign(bits=bits).fit(layer.weight)
        layer.weight.copy_(palette.decode(palette.encode(layer.weight)))
    return model


whole, before = perplexity(teacher), perplexity(best_palettes(bits=2))
print(f"held-out perplexity: {whole:.2f} unquantized, {before:.2f} with palettes of 2 bits")

# %% [markdown]
# ## Soft palettes
#
# A number takes a mixture of entries, with shares that fall with the squared distance over a temperature, and entries
# are the means of what they share: soft k-means, the layer of DKM. `SoftPalette` finds the fixed point by Newton's
# method and its gradient by the implicit function theorem, on the different values of 16 bits; nothing of weights by
# entries is stored. `softness` is the temperature over the squared gap between entries. Only what lies behind palettes
# is trained.


# %%
def with_palettes(bits: int) -> tuple[torch.nn.Module, list[torch.nn.Parameter]]:
    """A copy of the model with soft palettes, and the weights behind them."""
    model = copy.deepcopy(teacher)
    weights = []
    for layer in choose_modules(model).values():
        layer.parameter.requires_grad_(True)
        weights.append(layer.parameter)
        parametrize.register_parametrization(layer.module, "weight", SoftPalette(bits, softness=0.05))
    return model, weights


# %% [markdown]
# ## Training
#
# The target is the next-token distribution of the unquantized model, on text that it was trained on. A few dozen steps
# of Adam are enough here.


# %%
def fine_tune(model: torch.nn.Module, weights: list[torch.nn.Parameter]) -> list[float]:
    """Loss of each step: KL of the model from the teacher, in nats per token."""
    generator = torch.Generator().manual_seed(SEED)
    optimizer = torch.optim.Adam(weights, lr=RATE)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, STEPS)
    losses = []
    for _ in range(STEPS):
        batch = windows[torch.randperm(len(windows), generator=generator)[:BATCH]]
        with torch.no_grad():
            wanted = log_softmax(teacher(input_ids=batch, use_cache=False).logits, -1).flatten(0, 1)
        found = log_softmax(model(input_ids=batch, use_cache=False).logits, -1).flatten(0, 1)
        loss = kl_div(found, wanted, log_target=True, reduction="batchmean")
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        losses.append(loss.item())
    return losses


# %%
model, weights = with_palettes(bits=2)
losses = fine_tune(model, weights)
soft = perplexity(model)
entries = harden(model)
after = perplexity(model)
print(f"held-out perplexity: {after:.2f} fine-tuned, {soft:.2f} with mixtures instead of nearest entries")
print(f"KL on the training text: {losses[0]:.3f} before, {losses[-1]:.3f} nats per token after {STEPS} steps")

# %% [markdown]
# `harden` ended the palettes: layers are plain again, and a weight has four values. The difference between the model
# that was trained and the one with the nearest entries is what softness costs; a smaller softness makes it smaller, and
# training slower, as fewer weights are near a border and feel their own gradient.

# %%
assert after < 0.75 * before
assert whole < after
assert after < 1.1 * soft
assert all(len(layer.weight.unique()) <= 4 for layer in choose_modules(model).values())
assert set(entries) == {f"{name}.weight" for name in choose_modules(model)}
