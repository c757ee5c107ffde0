# %% [markdown]
# # 10. Optimal scales
#
# Integers and number formats are given values $v_1 < \dots < v_N$ times a scale $s$ that a group of weights shares. The
# usual scale puts the largest magnitude on the largest value. This note finds the best scale exactly (10.1), with a
# sign or a zero point where the values are not symmetric (10.2), where the scale is itself a number of a few bits
# (10.3), says what that saves and why (10.4), and what rounded inputs cost (10.5).

# %%
import itertools
import math

import matplotlib.pyplot as plt
import numpy as np
from scipy.optimize import minimize_scalar
from scipy.stats import norm

import lattq as lq
from lattq.bounds import absmax_distortion, block_distortion
from lattq.bounds.formats import E2M1FN
from lattq.codebooks import best_scales

rng = np.random.default_rng(0)

# %% [markdown]
# ## 10.1 A sweep through the parabolas
#
# Numbers $x_i$ with weights $p_i \ge 0$ cost
#
# $$ E(s) = \sum_i p_i \min_v (x_i - s v)^2 = \min_q \; \sum_i p_i (x_i - s q_i)^2 ,  \tag{10.1} $$
#
# the lower envelope of one parabola for each assignment $q$ of values to numbers. A parabola has the minimum
#
# $$ \sum_i p_i x_i^2 - \frac{A^2}{B} \quad\text{at}\quad s = \frac AB, \qquad
#    A = \sum_i p_i x_i q_i, \quad B = \sum_i p_i q_i^2 . \tag{10.2} $$
#
# Only assignments of nearest values touch the envelope, and such an assignment changes where some $x_i$ passes the
# middle between two values: at $s = 2 x_i / (v + v')$. These are at most $n (N - 1)$ places. In falling order each adds
# $p_i x_i (v' - v)$ to $A$ and $p_i (v'^2 - v^2)$ to $B$, so one sort and one sweep visit all assignments that matter,
# and **the largest $A^2 / B$ on the way is the global minimum of $E$**: minima over $s$ and over $q$ may be exchanged,
# and no assignment has less than its own parabola.
#
# In the loop the weights are the pivots: $D = \sum_i d_i \lVert e_i \rVert^2$ (2.1), whatever quantizer makes the
# errors.


# %%
def sweep(x: np.ndarray, p: np.ndarray, values: np.ndarray) -> tuple[float, float]:
    """Best positive scale and its error, with one sort."""
    middles = (values[1:] + values[:-1]) / 2
    with np.errstate(divide="ignore", invalid="ignore"):
        places = x[:, None] / middles
    far = np.isfinite(places) & (places > 0)
    number, step = np.nonzero(far)
    outwards = np.where(middles[step] > 0, 1, -1)  # a falling scale moves codes away from 0
    before, after = np.where(outwards > 0, step, step + 1), np.where(outwards > 0, step + 1, step)
    order = np.argsort(-places[far])
    start = values[[np.sum(middles < np.sign(one) * 1e-300) for one in x]]
    a = np.sum(p * x * start) + np.cumsum((p[number] * x[number] * (values[after] - values[before]))[order])
    b = np.sum(p * start**2) + np.cumsum((p[number] * (values[after] ** 2 - values[before] ** 2))[order])
    gains = np.where(a > 0, a * a / b, 0.0)
    k = int(np.argmax(gains))
    return a[k] / b[k], float(np.sum(p * x * x) - gains[k])


def error_at(scale: float, x: np.ndarray, p: np.ndarray, values: np.ndarray) -> float:
    """E(s) by its definition."""
    return float(np.sum(p * np.min((x[:, None] - scale * values) ** 2, axis=1)))


int4 = np.arange(-8.0, 8.0)
x, p = rng.standard_normal((40, 32)), np.exp(rng.standard_normal(32))
found = best_scales(x, int4, p)
for row, scale, error in zip(x, found.scale, found.error, strict=True):
    own = sweep(row, p, int4)
    assert math.isclose(own[1], error, rel_tol=1e-9)
    assert math.isclose(error_at(scale, row, p, int4), error, rel_tol=1e-9)
    full = np.abs(row).max() / 7
    assert error <= min(error_at(s * full, row, p, int4) for s in np.linspace(0.1, 2.0, 200)) * (1 + 1e-12)

# %% [markdown]
# Two bounds shorten the sweep without a loss. Where only values are used whose doubles are values too, $s / 2$ is as
# good as $s$. And the numbers beyond the largest value cost $\sum_i p_i (|x_i| - s v_N)_+^2$, which grows as $s$ falls:
# once it exceeds the whole error at another scale, no smaller one can be best. For 128 numbers and 16 values little
# more than a quarter of the places is left.
#
# ## 10.2 A sign, and a zero point
#
# An even number of integers, $-2^{b-1} \dots 2^{b-1} - 1$, has one more value below 0. With a negative scale that value
# is above: the largest magnitude may lie on $-2^{b-1}$ whatever its sign. The sign of a stored scale is free; two
# sweeps
# find the best. With a zero point $z$ the values are $-z \dots N - 1 - z$, a sweep for each $z$; it is enough to go
# downhill from the $z$ that the range suggests, which is checked against all of them.

# %%
both = best_scales(x, np.stack([int4, -int4[::-1]]), p)
assert np.array_equal(both.error, np.minimum(best_scales(x, int4, p).error, best_scales(-x, int4, p).error))
saved = {}
for levels in (4, 8, 16):
    grids = np.arange(levels) - np.arange(levels)[:, None] * 1.0
    for name, y in (("Gauss", rng.standard_normal((100, 32))), ("exponential", rng.exponential(size=(100, 32)))):
        low, high = np.minimum(y.min(axis=1), 0), np.maximum(y.max(axis=1), 0)
        start = np.rint(-low / (high - low) * (levels - 1)).astype(int)
        downhill = best_scales(y, grids, start=start).error
        everywhere = np.min([best_scales(y, grid).error for grid in grids], axis=0)
        assert downhill.sum() < 1.001 * everywhere.sum()
        symmetric = best_scales(y, np.stack([grids[levels // 2], -grids[levels // 2][::-1]])).error
        saved[name, levels] = 1 - downhill.sum() / symmetric.sum()
assert saved["Gauss", 4] < 0.001  # at two bits the sign is as good as a zero point
assert saved["exponential", 16] > 0.5  # one-sided groups want a zero point

# %% [markdown]
# ## 10.3 Scales of a few bits
#
# A scale that must be a number of a format is the best of all that the bound of what is cut leaves: usually a few
# around the plain one, more where the largest magnitudes weigh little. MXFP4's rule keeps the exponent of the largest
# magnitude, and cuts what lies between 6 and 8; NVFP4's puts it on 6, next to the coarsest step of E2M1. Two levels of
# scales, as in NVFP4, ask for the scale of the whole tensor too. Once each block takes its best E4M3 number that one
# matters little: E4M3 looks the same in each octave, and blocks of one tensor spread over octaves. It must keep blocks
# away from the ends, though. The published one puts the largest block at the upper end, where no scale above the plain
# one is left: 1 to 2 % where rows differ by factors of e. Three quarters of it leaves that room. Where a few rows
# outweigh all others (factors of e² and more) the tensor's scale tunes these, worth some percent; that is not searched.

# %%
weight, white = rng.standard_normal((128, 512)), np.eye(512)
measured = {}
for name, fit in itertools.product(("nvfp4", "mxfp4", "nf4"), ("range", "error")):
    scheme = lq.recipes.block_format(name, fit=fit)
    measured[name, fit] = lq.quantize(weight, white, scheme).distortion(weight, white)
assert abs(measured["mxfp4", "range"] / block_distortion(lq.bounds.BLOCK_FORMATS["mxfp4"]) - 1) < 0.02
for name, ratio in (("nvfp4", 0.73), ("mxfp4", 0.94), ("nf4", 0.85)):
    assert abs(measured[name, "error"] / measured[name, "range"] - ratio) < 0.02
design = lq.quantizers.Format(E2M1FN, 16, "e4m3", fit="error")
for spread, most in ((0.0, 1.005), (1.0, 1.02)):
    rows = weight * np.exp(spread * rng.standard_normal((128, 1)))
    tensor = {}
    for part in (0.5, 0.6, 0.7, 0.75, 0.8, 0.9, 1.0):
        scheme = lq.Scheme(lq.transforms.Normalize(2688 * part), lq.feedback.OpenLoop(), design)
        tensor[part] = lq.quantize(rows, white, scheme).distortion(rows, white)
    print(f"{spread:g}: " + ", ".join(f"{part:g} {error / min(tensor.values()):.3f}" for part, error in tensor.items()))
    assert tensor[0.75] < most * min(tensor.values())

# %% [markdown]
# ## 10.4 What it saves
#
# The largest of $n$ Gaussians grows as $\sqrt{2 \ln n}$, and a step that follows it as well: at a fixed number of
# levels
# its error grows with $\ln n$. The best step for many numbers is that of the best grid for the source, whatever $n$;
# fitted to few numbers its error is below that. So the fewer the bits and the larger the group, the more is saved. At
# eight bits hardly anything is cut, and what is left to gain is luck: errors of nearby steps are nearly independent.


# %%
def fitted(levels: int, size: int, rows: int = 200) -> float:
    """Mean squared error of the best symmetric steps on Gaussian numbers."""
    grid = np.arange(levels) - levels // 2 * 1.0
    y = rng.standard_normal((rows, size))
    return float(best_scales(y, np.stack([grid, -grid[::-1]])).error.mean() / size)


ratios = {levels: fitted(levels, 128) / absmax_distortion(levels, 128) for levels in (4, 8, 16, 256)}
for levels, ratio in ((4, 0.43), (8, 0.61), (16, 0.75), (256, 0.87)):
    assert abs(ratios[levels] - ratio) < 0.03, ratios
assert fitted(4, 16) < fitted(4, 128) < fitted(4, 1024)

# %% [markdown]
# ## 10.5 Inputs, token by token
#
# Inputs are rounded while a model runs: each token $x$ of $n$ entries in the range from its least to its largest, zero
# included, times a factor $c$ of the layer, in $N = 2^b - 1$ steps of width $\Delta = c\,(\max x - \min x) / N$. Inside
# the range errors are nearly uniform in a step and uncorrelated, so that $\hat x = x + e$ costs a layer
#
# $$ \mathbb E \lVert W e \rVert^2 = \tfrac{1}{12}\, \mathbb E \Delta^2 \, \lVert W \rVert_F^2 .  \tag{10.3} $$
#
# The second moment of $x$ is not in it: every channel gets the same noise, however little power it has. Rounded in the
# coordinates of a map $T$ the layer is $W T^{-1}$ on $Q(T x)$ and $\hat x = T^{-1} Q(T x)$. Then the range is that of
# $T x$, the norm that of $W T^{-1}$, and a map is as good as it makes their product small.
#
# **The factor.** For Gaussian entries of variance 1 and a range $\pm A$, $A = c\,\mathbb E \max |x|$, the steps and
# what lies outside of the range cost
#
# $$ D(A) = \frac{A^2}{3 N^2} + 2 \int_A^\infty (x - A)^2 \varphi(x)\, dx
#         = \frac{A^2}{3 N^2} + 2 (1 + A^2)\, \Phi(-A) - 2 A\, \varphi(A) ,  \tag{10.4} $$
#
# least where $A / 3 N^2 = 2 \varphi(A) - 2 A\, \Phi(-A)$. The best $A$ depends on the bits alone; the largest entry
# grows with $n$. So long tokens of few bits want to be clipped, those of eight bits hardly.
#
# **The weights.** Given $\hat x$ the best are $W\, \mathbb E[x \hat x^\top]\, \mathbb E[\hat x \hat x^\top]^{-1}$,
# whatever the errors are. For errors of variance $\delta$ that do not depend on $x$, and eigenvectors $u_i$ of
# $\Sigma$ with eigenvalues $\lambda_i$,
#
# $$ V = W \Sigma\, (\Sigma + \delta I)^{-1} , \qquad \mathbb E \lVert W x - V \hat x \rVert^2 =
#    \sum_i \frac{\delta \lambda_i}{\lambda_i + \delta} \lVert W u_i \rVert^2
#    < \delta\, \lVert W \rVert_F^2 :  \tag{10.5} $$
#
# directions below the noise are given up: at four bits those of all small eigenvalues, at eight hardly any.
#
# **What comes first.** $T$ may depend on $\Sigma$, the errors depend on $T$, and the weights should be quantized for
# $\hat \Sigma = \mathbb E[\hat x \hat x^\top]$. No circle has to be solved: $T$ is chosen for $\Sigma$ and held. In its
# coordinates $T \hat \Sigma T^\top = T \Sigma T^\top + \delta I$ up to clipping, so all that rounding does to feedback
# is to damp it, by as much as was measured.

# %%
n, steps, tokens = 256, 15, 2000
lambdas = np.geomspace(1.0, 1e-4, n)
basis = np.linalg.qr(rng.standard_normal((n, n)))[0]
inputs = rng.standard_normal((tokens, n)) * np.sqrt(lambdas) @ basis.T
inputs *= np.sqrt(n / lambdas.sum())
layer = rng.standard_normal((64, n))


def token_rounded(x: np.ndarray, factor: float, steps: int) -> np.ndarray:
    """Every row in so many steps of its own range."""
    low, high = factor * np.minimum(x.min(axis=1), 0)[:, None], factor * np.maximum(x.max(axis=1), 0)[:, None]
    step = (high - low) / steps
    top = np.floor(high / step + 0.5)
    return step * np.clip(np.floor(x / step + 0.5), top - steps, top)


seen = token_rounded(inputs, 1.0, steps)
widths = (inputs.max(axis=1) - inputs.min(axis=1)) / steps
noise = np.mean(widths**2) / 12
plain = np.mean(np.sum(((seen - inputs) @ layer.T) ** 2, axis=1))
assert abs(plain / (noise * np.sum(layer**2)) - 1) < 0.05  # (10.3)
best = layer @ np.linalg.solve(seen.T @ seen, seen.T @ inputs).T
corrected = np.mean(np.sum((inputs @ layer.T - seen @ best.T) ** 2, axis=1))
values, vectors = np.linalg.eigh(inputs.T @ inputs / tokens)
predicted = np.sum(noise * values / (values + noise) * np.sum((layer @ vectors) ** 2, axis=0))
assert abs(corrected / predicted / (1 - n / tokens) - 1) < 0.05  # (10.5), for weights fitted to these tokens
assert corrected < 0.65 * plain


def best_factor(bits: int) -> tuple[float, float]:
    """The best factor of Gaussian tokens, by (10.4) and by trying."""
    white, count = rng.standard_normal((400, n)), 2**bits - 1

    def cost(a: float) -> float:
        return a**2 / (3 * count**2) + 2 * (1 + a**2) * norm.cdf(-a) - 2 * a * norm.pdf(a)

    largest = np.mean(white.max(axis=1) - white.min(axis=1)) / 2
    tried = np.linspace(0.4, 1.0, 61)
    errors = [np.mean((token_rounded(white, factor, count) - white) ** 2) for factor in tried]
    return minimize_scalar(cost, bounds=(0.5, 6.0), method="bounded").x / largest, tried[int(np.argmin(errors))]


for bits in (2, 3, 4):
    formula, tried = best_factor(bits)
    print(f"{bits} bits: best factor {formula:.3f} by (10.4), {tried:.3f} by trying")
    assert abs(formula - tried) < 0.04
assert best_factor(6)[0] > 1  # nothing is gained

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
scales = np.linspace(0.3, 1.6, 600)
full = np.abs(x[0]).max() / 7.5
left.plot(scales, [error_at(s * full, x[0], p, int4) for s in scales])
left.axvline(found.scale[0] / full, color="tab:green", label="best")
left.axvline(1.0, color="tab:gray", linestyle="--", label="largest magnitude")
left.set(xlabel="scale over that of the largest magnitude", ylabel="squared error", title="10.1: 32 numbers, INT4")
left.legend()
sizes = [8, 16, 32, 64, 128, 256, 512]
for levels in (4, 8, 16):
    line = right.semilogy(sizes, [absmax_distortion(levels, size) for size in sizes], "--")[0]
    right.semilogy(sizes, [fitted(levels, size, 50) for size in sizes], "o-", color=line.get_color(), label=f"{levels}")
right.set(
    xscale="log", xlabel="numbers that share a step", ylabel="squared error", title="10.4: N(0, 1), dashed: range"
)
right.legend(title="levels")
plt.close(figure)
figure
