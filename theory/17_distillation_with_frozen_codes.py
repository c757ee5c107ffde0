# %% [markdown]
# # 17. Distillation with frozen codes
#
# Once its codes are chosen a quantized model still has numbers that can move: gains, steps, norms, biases, and what
# stays dense. Training them by the KL from the full model costs no code. Four questions: how much of the KL they can
# mend at all, why it is more than their number, what their bytes are worth, and why dense tables do more than gains.
#
# In the code: `lattq.llm.refine_model` (17.1), `lattq.llm.distill.factors` (17.2, 17.3), `lattq.llm.Refining` (17.4);
# measured in `benchmarks/claims/refine.py`.

# %%
import numpy as np

from lattq.coding.integers import encode_integers

rng = np.random.default_rng(17)

# %% [markdown]
# ## 17.1 A noise cannot be mended, a bias can
#
# Let all weights of a model be off by $e$. The second-order KL is $\tfrac12 e^\top F e$, with $F$ the Fisher
# information of the model's own predictions. Factors $u$, $m$ of them, move the weights by $Ju$, so the best of them
# leave
#
# $$\min_u \tfrac12 (e + Ju)^\top F (e + Ju) = \tfrac12 e^\top F e - \tfrac12 \lVert P F^{1/2} e \rVert^2, \tag{17.1}$$
#
# with $P$ the projection onto the columns of $F^{1/2} J$, which has rank at most $m$. If $F^{1/2} e$ is a noise of $r$
# independent directions of equal power, the share that is mended is $m / r$ on average: next to nothing, for a gain a
# row is one number of hundreds. Whatever more is mended is no noise. So (17.1) says what distillation does and does
# not do: it repairs what errors have in common, not the errors.

# %%
n, m = 400, 20
shares = []
for _ in range(200):
    tangent = rng.standard_normal((n, m))
    basis = np.linalg.qr(tangent)[0]
    noise = rng.standard_normal(n)
    shares.append(float(np.sum((basis.T @ noise) ** 2) / np.sum(noise**2)))
share, spread = float(np.mean(shares)), float(np.std(shares) / np.sqrt(len(shares)))
print(f"a noise: {share:.4f} of the KL is mended, m / n = {m / n:.4f}")
assert abs(share - m / n) < 4 * spread

# %% [markdown]
# ## 17.2 What errors have in common
#
# An error of rate $R$ that is independent of the weight makes $\hat w = w + e$ longer than $w$, by $1 + 2^{-2R}$ in
# power to first order. The gain of least error is $1 / (1 + 2^{-2R})$. Through a chain of layers errors add up and
# later layers see inputs with more power, so that neither 1 nor the gain of least error is right (2.6); each row
# finds its own from the predictions. A softmax readout of noisy hidden states shows it: gains of the channels of the
# state mend what (17.1) predicts.

# %%
tokens, width, vocabulary = 3000, 24, 60
spectrum = np.geomspace(3, 0.05, width)
states = rng.standard_normal((tokens, width)) * spectrum
readout = rng.standard_normal((vocabulary, width))


def log_softmax(x: np.ndarray) -> np.ndarray:
    """Along the last axis."""
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


logs = log_softmax(states @ readout.T)
p = np.exp(logs)


def kl(noisy: np.ndarray, table: np.ndarray) -> float:
    """Mean KL of the readout `table` of `noisy` states."""
    return float(np.mean(np.sum(p * (logs - log_softmax(noisy @ table.T)), axis=-1)))


noisy = states + 0.06 * rng.standard_normal(states.shape)  # what the layers before have added
plain = kl(noisy, readout)


def curvature(directions: list[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Gradient and Gauss-Newton matrix of the KL for moves of the logits along some directions, (tokens, words)."""
    q = np.exp(log_softmax(noisy @ readout.T))
    centred = [one - np.sum(q * one, axis=-1, keepdims=True) for one in directions]
    gradient = np.array([np.mean(np.sum((q - p) * one, axis=-1)) for one in directions])
    matrix = [[np.mean(np.sum(q * one * other, axis=-1)) for other in centred] for one in centred]
    return gradient, np.array(matrix)


gradient, matrix = curvature([noisy[:, [i]] * readout[:, i] for i in range(width)])
gains = 1 - np.linalg.solve(matrix, gradient)
predicted = plain - 0.5 * gradient @ np.linalg.solve(matrix, gradient)
found = kl(noisy, readout * gains)
print(f"KL {plain:.4f}, with gains {found:.4f}, predicted by (17.1) {predicted:.4f}; gains {gains.round(2)}")
assert found < 0.95 * plain
assert abs(found - predicted) < 0.2 * (plain - found)
assert gains[-1] < gains[0] < 1  # what is weak beside its noise is turned down

# %% [markdown]
# ## 17.3 What the bytes of a gain are worth
#
# At rate $R$ the KL falls as $4^{-R}$, so over $N$ weights a bit that is spent anywhere must spare
#
# $$\lambda = \frac{2 \ln 2}{N}\,\mathrm{KL} \quad \text{nats}. \tag{17.2}$$
#
# Gains are integers in 128ths, coded as one discretised Gaussian around what a decoder expects. With mean square
# $s^2$, $n$ of them cost about $\tfrac n2 \log_2(1 + 12 s^2)$ bits, which is 0 for none and off by a scalar code's
# quarter of a bit elsewhere. $\lambda$ times that is part of the loss: gains that spare little stay put.
# States are compared by $\mathrm{KL} \cdot 4^{\Delta R}$, the KL at the bytes of the start. The grid of gains is fine
# enough: its error of $1/(12 \cdot 128^2)$ is 0.13 % of what four bits a weight leave.

# %%
for scale in (1.0, 2.0, 5.5):
    integers = np.rint(scale * rng.standard_normal(20_000)).astype(np.int64)
    bits = 8 * len(encode_integers(integers)[2]) / integers.size
    formula = 0.5 * np.log2(1 + 12 * scale**2)
    print(f"gains of standard deviation {scale}: {bits:.2f} bits, the formula says {formula:.2f}")
    assert 0 < bits - formula < 0.35
assert 1 / (12 * 128**2) < 1.5e-3 * 4.0**-4

# %% [markdown]
# ## 17.4 Why dense tables do more
#
# The errors of all layers end in the last hidden state, $h' = h + \varepsilon$. An output layer with all its numbers
# free answers them with a matrix where gains have a diagonal: in second moments the best is
#
# $$V' = V\, \mathsf E[h h'^\top]\, \mathsf E[h' h'^\top]^{-1}, \tag{17.3}$$
#
# which leaves in each direction the smaller of signal and noise, $\lambda\nu / (\lambda + \nu)$ instead of $\nu$. The
# table of tokens stays dense in every recipe here, so this takes no byte (QuIP# trains what is dense for that reason).
# It learns `vocabulary × width` numbers, which takes tokens: held-out windows say when to stop.
#
# Below, the noise is in a few directions that the axes of the state do not know, and gains cannot turn it down.

# %%
basis = np.linalg.qr(rng.standard_normal((width, width)))[0]
noisy = states + rng.standard_normal((tokens, width)) * np.where(np.arange(width) < 4, 0.25, 0.02) @ basis.T
plain = kl(noisy, readout)
gradient, matrix = curvature([noisy[:, [i]] * readout[:, i] for i in range(width)])
diagonal = kl(noisy, readout * (1 - np.linalg.solve(matrix, gradient)))
table = readout @ (states.T @ noisy) @ np.linalg.inv(noisy.T @ noisy)
whole = kl(noisy, table)
print(f"KL {plain:.4f}; gains {diagonal / plain:.3f} of it, the whole table {whole / plain:.3f}")
assert whole < 0.9 * diagonal < 0.9 * plain

# %% [markdown]
# ## 17.5 Stages, measured
#
# KL of the embedded model over that of the plain 256-state trellis at the same bytes, by $4^{\Delta R}$ (three epochs
# on 40 000 tokens; an unseen novel, and the reference of the Python language):
#
# | what learns | 2 bits | 3 bits |
# |---|---|---|
# | steps of layers and norms, no byte | .94, .97 | |
# | gains of rows as well, 3 bits each | .91, .97 | .97, .98 |
# | gains of columns as well | .91, 1.00 | |
# | gains of rows for each of four groups of columns | .91, 1.00 | |
# | gains of rows, and the dense embedding, no byte | .82, .91 | .84, .89 |
# | gains of rows; codes chosen layer by layer, all that is still dense trained in between | | .91, .91 |
#
# Finer factors mend more and cost as much: (17.1) at work, since what errors have in common is a number or two for each
# row. They are not built. Codes chosen anew after refining are new errors, which embeddings and norms have not learned:
# quantizing all layers again inside the refined model of 3 bits raises held-out KL from .0055 to .0103. A step of
# Gauss and Newton first, by $(G \otimes \Sigma)^{-1}$ towards where the true gradient vanishes, overshoots: half of it,
# in the first block alone, gives .0206. Only training whatever is still dense between any two layers helped, for
# as many trainings as there are layers.
#
# Beside the embedding gains of rows are not worth their bytes either: after ten epochs with
# two-sided codes of 3 bits, KL .00786 without them at 3.0009 bits, .00785 with them at 3.0095, which bytes alone would
# make .00777. So they learn when asked (`Refining(gains=True)`), and the default adds no byte to any layer. Final
# figures are in `benchmarks/results/refine.json`.

# %%
rows, columns, spread = 256, 256, 2.3  # of the gains of four groups, in 128ths
extra = 4 * rows * 0.5 * np.log2(1 + 12 * spread**2) / (rows * columns)
print(f"gains of four groups take {extra:.3f} bit a weight, worth {4**extra:.3f} in KL")
assert 4**extra > 1.05
