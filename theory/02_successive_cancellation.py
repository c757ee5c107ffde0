# %% [markdown]
# # 2. Successive cancellation
#
# One loop is behind GPTQ, LDLQ, Babai's nearest plane and WaterSIC. This note proves its identity (2.1), its loss at
# high rate (2.2), the best steps (2.3), what low rates need (2.4), and how further passes take plain rounding below
# the 0.2546 bit of a cube (2.5). A model is not the sum of its layers (2.6). Ranges, rounding and units are finite
# (2.7 to 2.9).
#
# As in note 1, rows of $W$ (rows × $n$) act on inputs with second moment $\Sigma$, $\hat W$ costs the distortion $D$
# of (1.11), logarithms are binary unless written $\ln$, and a gap is a rate less $R(D)$. AM and GM are arithmetic and
# geometric means; overlines are means over $i = 1, \dots, n$. Measured rates are those of whole files.

# %%
import functools
import math

import matplotlib.pyplot as plt
import numpy as np
from scipy.optimize import brentq, minimize_scalar
from scipy.spatial import Voronoi
from scipy.stats import norm

import lattq as lq
from lattq.bounds import CUBIC_GAP
from lattq.feedback import MMSE, successive_cancellation
from lattq.linalg import ldl
from lattq.quantizers import Uniform
from lattq.transforms import Equalize

rng = np.random.default_rng(2)
plain = functools.partial(lq.recipes.watersic, mmse=0.0, shrink=False, sweeps=0)


def second_moment(n: int, spread: float, rotated: bool = True) -> np.ndarray:
    """Eigenvalues exp(N(0, spread²)) in a random basis, or in that of the inputs."""
    basis = np.linalg.qr(rng.standard_normal((n, n)))[0] if rotated else np.eye(n)
    return (basis * np.exp(spread * rng.standard_normal(n))) @ basis.T


def distortion(error: np.ndarray, sigma: np.ndarray) -> float:
    """(1.11)."""
    return float(np.mean((error @ sigma) * error))


def gap(layer: lq.Quantized, weight: np.ndarray, sigma: np.ndarray) -> float:
    """Bits of the file above the bound for weights N(0, 1)."""
    return layer.gap(weight, sigma, row_variance=1.0, column_variance=1.0)


# %% [markdown]
# ## 2.1 The loop and its identity
#
# Factor $\Sigma = U \operatorname{diag}(d)\, U^\top$ with $U$ unit lower triangular; the $d_i \ge 0$ are the pivots.
# Quantize the columns from last to first, each time rounding a target that contains the errors made so far:
#
# $$ t_i = w_i + \sum_{j>i} (w_j - \hat w_j)\, U_{ji}, \qquad \hat w_i = Q_i(t_i), \qquad e_i = t_i - \hat w_i .
#    \tag{2.1} $$
#
# Column $i$ of $(W - \hat W)\,U$ is $w_i - \hat w_i + \sum_{j>i}(w_j - \hat w_j) U_{ji} = t_i - \hat w_i$. So,
# whatever the quantizers $Q_i$ are,
#
# $$ (W - \hat W)\, U = e, \qquad D = \frac1{\text{rows}\cdot n} \sum_i d_i \lVert e_i \rVert^2 . \tag{2.2} $$
#
# The layer has become $n$ separate quantizers with weights $d_i$. With another unit lower triangular feedback $F$,
# $(W - \hat W) F = e$, and uncorrelated $e_i$ of variance $\epsilon_i$ cost
# $\sum_{ij} \epsilon_i (F^{-1} U)_{ij}^2 d_j \ge \sum_i \epsilon_i d_i$: no feedback is better than $U$ (LDLQ).
#
# **Babai.** In whitened coordinates $y = wL$, $L = U \operatorname{diag}(\sqrt d)$, the reconstructions
# $\hat w \in \prod_i \alpha_i \mathbb Z$ are a lattice. Those with the same last integer lie in one hyperplane; (2.1)
# takes the nearest one, projects onto it, and goes on inside: the nearest-plane algorithm.
#
# **GPTQ** goes from first to last with the upper Cholesky factor of $\Sigma^{-1} = V^\top V$ and takes $e_i V_{ij} /
# V_{ii}$ from every later target, so $W - \hat W = e N$ with $N = \operatorname{diag}(V)^{-1} V$. Write $\Sigma =
# \tilde U \operatorname{diag}(\tilde d)\, \tilde U^\top$ with $\tilde U$ unit *upper* triangular: that is (2.1) on
# reversed columns, $W - \hat W = e \tilde U^{-1}$. Inverted, $\Sigma^{-1} = \tilde U^{-\top}
# \operatorname{diag}(\tilde d)^{-1} \tilde U^{-1}$; such factors are unique, so $N = \tilde U^{-1}$ and $V_{ii}^2 =
# 1/\tilde d_i$. The two are one algorithm.
#
# **Blocks.** If $U$ is block-unit with $b \times b$ pivots $D_B$, the proof is the same and $D =
# \frac1{\text{rows}\cdot n} \sum_B \operatorname{tr} e_B D_B e_B^\top$: a quantizer of $b$ columns measures its error
# by $D_B$. Blocks *down the rows* of a column need no such care, since they share the pivot $d_i$.


# %%
def textbook_gptq(weight: np.ndarray, sigma: np.ndarray, step: float) -> np.ndarray:
    """Frantar et al. 2023, algorithm 1, with one step for all columns."""
    target, found = weight.copy(), np.zeros_like(weight)
    upper = np.linalg.cholesky(np.linalg.inv(sigma)).T
    for i in range(weight.shape[1]):
        found[:, i] = step * np.rint(target[:, i] / step)
        target[:, i:] -= np.outer((target[:, i] - found[:, i]) / upper[i, i], upper[i, i:])
    return found


sigma, weight = second_moment(24, 1.0), rng.standard_normal((200, 24))
for block in (1, 4):
    factor = ldl(sigma, block=block)
    result = successive_cancellation(weight, factor, Uniform(0.3))
    error = weight - result.reconstruction
    assert np.allclose(error @ factor.unit, result.noise, atol=1e-13)  # (2.2)
    tiles, parts = factor.pivots.reshape(-1, block, block), result.noise.reshape(len(weight), -1, block)
    paid = np.einsum("rbi,bij,rbj->", parts, tiles, parts) / weight.size
    assert math.isclose(distortion(error, sigma), paid, rel_tol=1e-12)

backwards = successive_cancellation(weight, ldl(sigma, order=np.arange(24)[::-1]), Uniform(0.3))
assert np.array_equal(textbook_gptq(weight, sigma, 0.3), backwards.reconstruction)

# %% [markdown]
# ## 2.2 The loss at high rate
#
# Round column $i$ to multiples of $\alpha_i$ and entropy-code its integers. For small $\alpha_i$ the error $e_i$ is
# uniform in its cell and what is fed back hardly changes the density of $t_i$, so with (1.15)
#
# $$ D = \overline{d_i \alpha_i^2} \,/\, 12, \qquad R = h(W) - \overline{\log \alpha_i} . \tag{2.3} $$
#
# Since $\det(\Sigma)^{1/n} = \mathrm{GM}(d)$ in (1.14), the gap is (1.17),
#
# $$ R - R(D) = \tfrac12\log\frac{2\pi e}{12} +
#    \tfrac12\log\frac{\mathrm{AM}(d_i\alpha_i^2)}{\mathrm{GM}(d_i\alpha_i^2)} . \tag{2.4} $$
#
# One step for all columns (entropy-coded GPTQ) pays the AM/GM of the pivots: $s^2/(4 \ln 2)$ bits if $\Sigma$ is
# diagonal with eigenvalues $\exp \mathcal N(0, s^2)$, without bound in the spread $s$; less in a random basis, where
# pivots spread less.

# %%
weight, spreads = rng.standard_normal((4096, 48)), np.array([0.0, 0.5, 1.0, 1.5, 2.0])
cases = {"GPTQ, diagonal Σ": False, "GPTQ, rotated Σ": True}
derived, measured = {name: [] for name in cases}, {name: [] for name in [*cases, "WaterSIC"]}
for spread in spreads:
    for name, rotated in cases.items():
        sigma = second_moment(weight.shape[1], spread, rotated)
        fine = math.sqrt(12 * 4.0**-6 * np.linalg.eigvalsh(sigma).min())
        derived[name].append(lq.bounds.cancellation_loss(ldl(sigma).pivots))
        scheme = lq.recipes.huffman_gptq(fine, order="natural")
        measured[name].append(gap(lq.quantize(weight, sigma, scheme), weight, sigma))
        # The 400 bytes of header and scales are 0.016 bit of these gaps; slots take 0.001 from seven bits on (3.5).
        assert 0.0 < measured[name][-1] - derived[name][-1] < 0.02
    measured["WaterSIC"].append(gap(lq.quantize(weight, sigma, plain(fine)), weight, sigma))
    assert 0.0 < measured["WaterSIC"][-1] - CUBIC_GAP < 0.02  # (2.5)

figure, axis = plt.subplots(figsize=(6, 3.5), layout="constrained")
for (name, values), colour in zip(derived.items(), ("tab:red", "tab:orange"), strict=True):
    axis.plot(spreads, values, color=colour, label=f"{name}: (2.4)")
    axis.plot(spreads, measured[name], "o", color=colour)
axis.plot(spreads, measured["WaterSIC"], "s", color="tab:blue", label="WaterSIC, rotated Σ")
axis.axhline(CUBIC_GAP, color="black", linewidth=1, linestyle=":")
axis.set(xlabel="spread (deviation of ln λ)", ylabel="gap (bits)", title="high rate: lines derived, dots real files")
axis.legend()
plt.close(figure)
figure

# %% [markdown]
# ## 2.3 Equal pivots
#
# (2.4) is least where all $d_i \alpha_i^2$ are equal, WaterSIC's rule $\alpha_i = c/\sqrt{d_i}$:
#
# $$ D = \frac{c^2}{12} \quad\text{and}\quad R - R(D) = \tfrac12\log\frac{2\pi e}{12} = 0.2546, \quad
#    \text{whatever } \Sigma . \tag{2.5} $$
#
# The transform $W \to W \operatorname{diag}(\sqrt d)$, $\Sigma \to \operatorname{diag}(d)^{-1/2}\, \Sigma
# \operatorname{diag}(d)^{-1/2}$ makes every pivot 1; the loop with *one* step $c$ is then WaterSIC. That is
# `Equalize`, whose scales on a grid of 1/16 octave cost 0.0002 bit (3.12). Only $\prod_i d_i = \det\Sigma$ enters the
# rate, so **at high rate neither the order of the columns nor the basis matters**. One $c$ for all layers gives all
# the same level, the best allocation (1.10).
#
# In two dimensions take $\Sigma = V \operatorname{diag}(3, 1)\, V^\top$ with $V =
# \frac1{\sqrt2}\left(\begin{smallmatrix} 1 & 1 \cr 1 & -1\end{smallmatrix}\right)$; then $d = (2, \frac32)$. The
# lattice $\alpha_1 \mathbb Z \times \alpha_2 \mathbb Z$ is skewed in the whitened plane. Babai's cells are squares,
# laid like bricks; the cells of the nearest point are hexagons of the same area, with a smaller second moment.

# %%
V = np.array([[1.0, 1.0], [1.0, -1.0]]) / math.sqrt(2)
sigma = V @ np.diag([3.0, 1.0]) @ V.T
factor = ldl(sigma)
assert np.allclose(factor.pivots, [2.0, 1.5])
sides = 1 / np.sqrt(factor.pivots)
equal = sigma * np.outer(sides, sides)  # in units of the sides
sample = rng.uniform(-30, 30, (100_000, 2))
box = sample - successive_cancellation(sample, ldl(equal), Uniform(1.0)).reconstruction
grid = np.stack(np.meshgrid(np.arange(-6, 7), np.arange(-6, 7)), axis=-1).reshape(-1, 2)
around = box[:, None, :] - grid[np.abs(grid).max(axis=1) <= 2]
nearest = np.einsum("spi,ij,spj->sp", around, equal, around).min(axis=1).mean() / 2
assert abs(distortion(box, equal) - 1 / 12) < 3e-4
assert abs(nearest - 0.0809) < 3e-4

white = factor.unit * np.sqrt(factor.pivots)  # y = w @ white
points = grid * sides @ white
diagram = Voronoi(points)
hexagon = diagram.vertices[diagram.regions[diagram.point_region[len(points) // 2]]]
square = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) / 2
figure, axes = plt.subplots(2, 2, figsize=(8, 7), layout="constrained")
for row, plane, back in zip(axes, ("w", "y = wL"), (np.linalg.inv(white), np.eye(2)), strict=True):
    for axis, name, cell in zip(row, ("Babai, 1/12", "nearest point, 0.0809"), (square, hexagon), strict=True):
        for point in points:
            axis.fill(*((point + cell) @ back).T, facecolor="none", edgecolor="tab:blue", linewidth=0.8)
        axis.plot(*(points @ back).T, "k.", markersize=5)
        axis.set(xlim=(-2.2, 2.2), ylim=(-2.2, 2.2), aspect="equal", title=f"plane of {plane}: {name}")
plt.close(figure)
figure

# %% [markdown]
# ## 2.4 Low rate: MMSE feedback
#
# **The form.** Let $H = \Sigma + J$ and $T = W \Sigma H^{-1}$. Completing the square, for every $\hat W$,
#
# $$ \operatorname{tr} (W - \hat W) \Sigma (W - \hat W)^\top + \operatorname{tr} \hat W J \hat W^\top =
#    \operatorname{tr} (T - \hat W) H (T - \hat W)^\top + \operatorname{tr} W (\Sigma - \Sigma H^{-1} \Sigma) W^\top .
#    \tag{2.6} $$
#
# Both sides have the quadratic part $\hat W H \hat W^\top$ and the linear part $-2 W \Sigma \hat W^\top$. So the loop
# with target $T$ and the factor of $H = U \operatorname{diag}(d)\, U^\top$ minimises the distortion plus a price on
# $\hat W$. $T$ need not be formed: since $W - T = W J H^{-1}$, the first term on the right is
#
# $$ \sum_i d_i \lVert ((W - \hat W)\, U)_i - c_i \rVert^2, \qquad
#    C = W J\, U^{-\top} \operatorname{diag}(d)^{-1}, \tag{2.6b} $$
#
# so the loop keeps $W$ and takes $c_i$ from its targets (2.1): one triangular system, in place of an inverse and a
# product. A sweep (2.5) takes the columns of $W J$ divided by those of $\operatorname{diag} H$ instead.
#
# **Which $J$?** A code that does not know $\Sigma$ is white, $\hat w \sim \mathcal N(0, \tau I)$, and spends $\hat
# w_i^2 / (2 \tau \ln 2)$ bits more on $\hat w_i$ than on 0. At level $\theta$ a bit is worth $2 \theta \ln 2$ of
# distortion (1.10). Hence $J = \delta I$ with $\delta = \theta/\tau$. The best test channel with that code says the
# same:
#
# $$ p(\hat w \mid w) \propto e^{-\lVert \hat w \rVert^2 / 2\tau}\,
#    e^{-(w - \hat w) \Sigma (w - \hat w)^\top / 2 \theta}
#    \propto e^{-(T - \hat w) H (T - \hat w)^\top / 2\theta}, \qquad \delta = \theta/\tau . \tag{2.7} $$
#
# Drawn column by column from the last to the first, it is $\hat w_i = t_i + \mathcal N(0, \theta/d_i)$ with the
# targets (2.1). **The loop on $H$ is this channel with rounding errors for its noise**: steps
# $c/\sqrt{d_i}$, $\theta = c^2/12$.
#
# **What the channel reaches.** In the eigenbasis of $\Sigma$, (2.7) has means $m_i w_i$,
# $m_i = \lambda_i/(\lambda_i + \delta)$, and variances $v_i = \theta/(\lambda_i + \delta)$. The rate is its mean
# divergence from the code; for weights of variance 1,
#
# $$ R = \frac1{2 \ln 2}\, \overline{v_i/\tau + m_i^2/\tau - 1 - \ln (v_i/\tau)}, \qquad
#    D = \overline{\lambda_i \bigl( (1 - m_i)^2 + v_i \bigr)} . \tag{2.8} $$
#
# The best $\tau$ is the power of the output, $\overline{m_i^2 + v_i}$; with $\theta = \delta\tau$ that means
# $\tau = \overline{m_i^2} / \overline{m_i}$. Since $\lambda_i (1 - m_i) = \delta m_i$, all collapses to
#
# $$ R = \tfrac12\, \overline{\log (1 + \lambda_i/\delta)}, \qquad
#    D = \overline{\lambda_i \delta / (\lambda_i + \delta)} , \tag{2.9} $$
#
# where waterfilling has $\log^+ (\lambda_i/\theta)$ and $\min(\lambda_i, \theta)$. Every component is on its own
# curve, $D_i = \lambda_i 4^{-R_i}$; only the shares of the bits are soft. To maximise the price of that over all
# distributions of $\lambda/\delta$ of equal $D$ is, for each $\theta/\delta < 1$, a linear program with one
# constraint. Its optimum, computed below, is 0.1084 bit at two eigenvalues, and agrees with the 0.11 bit that
# Harbuzova, Ordentlich and Polyanskiy (2026) give for decoders that do not know $\Sigma$.
#
# **What rounding reaches.** Let a dither, uniform in the cell and known to the decoder, make $e_i$ uniform and
# independent of $t_i$. Then $\hat w$ has the second moments of (2.7), and $D$ is that of (2.9). Column $i$ costs
# $I(t_i; \hat w_i) \le \tfrac12 \log (2\pi e \operatorname{var} \hat w_i) - \log (c/\sqrt{d_i})$ bits. Average over
# $i$; the logarithm is concave, the mean variance $\tau$, and $\prod_i d_i = \det H$:
#
# $$ R \le \tfrac12 \log \frac{2 \pi e}{12} + \tfrac12\, \overline{\log (1 + \lambda_i/\delta)} . \tag{2.10} $$
#
# **With dither and an ideal coder the gap is at most 0.2546 + 0.1084 bit, for every $\Sigma$, order and rate.**
# Practice leaves the dither out. Gains $\gamma < 1$ on the columns (1.19) do part of the same work: with them a
# smaller $\delta$ is best, and not as good.


# %%
def soft(spectrum: np.ndarray, delta: float) -> tuple[float, float, float]:
    """Rate and distortion (2.9), and the variance of the code."""
    m = spectrum / (spectrum + delta)
    return 0.5 * np.log2(1 + spectrum / delta).mean(), delta * m.mean(), (m**2).mean() / m.mean()


def price(spectrum: np.ndarray, delta: float) -> float:
    """Bits above waterfilling."""
    rate, reached, _ = soft(spectrum, delta)
    return rate - lq.bounds.rate_distortion(spectrum, reached)


quantiles = norm.ppf((np.arange(1000) + 0.5) / 1000)
for spread, prices in ((1.0, (0.0000, 0.0003, 0.0037, 0.0246)), (2.0, (0.0014, 0.0064, 0.0202, 0.0438))):
    spectrum = np.exp(spread * quantiles)
    for wanted, expected in zip((4, 3, 2, 1), prices, strict=True):
        delta = brentq(lambda delta, s=spectrum, r=wanted: soft(s, delta)[0] - r, 1e-9, 1e3)
        assert abs(price(spectrum, delta) - expected) < 3e-4
        rate, reached, tau = soft(spectrum, delta)
        m, v = spectrum / (spectrum + delta), delta * tau / (spectrum + delta)
        assert math.isclose(rate, (v / tau + m**2 / tau - 1 - np.log(v / tau)).mean() / (2 * math.log(2)))  # (2.8)
        assert math.isclose(reached, (spectrum * ((1 - m) ** 2 + v)).mean())

# The dual: for every level θ (δ = 1) a slope that bounds excess rate + slope * excess distortion at all eigenvalues x.
x, worst = np.concatenate([[0.0], np.geomspace(1e-4, 1e9, 1000)]), 0.0
for theta in np.linspace(0.02, 0.98, 49):
    bits = 0.5 * np.log2(1 + x) - 0.5 * np.log2(np.maximum(x / theta, 1))
    error = x / (1 + x) - np.minimum(x, theta)
    worst = max(worst, minimize_scalar(lambda slope, b=bits, e=error: (b + slope * e).max(), bounds=(0, 60)).fun)
assert worst < 0.1084
assert price(np.repeat([1e12, 0.347], [185, 815]), 1.0) > 0.1083  # and two eigenvalues reach it

# %% [markdown]
# Now files, and one dithered run to test (2.9). Without dither the plain loop is poor at low rate, gains inside the
# loop help, and $\delta = \theta$ without gains is best, close to 0.2546 + price down to 1 bit (figure at the end).
# Refitting what codes decode to, gains and centroids by least squares, then finds next to nothing.
#
# **Order.** A column of pivot below $\theta$ gets no bits. So the plain loop comes closest to waterfilling if the
# pivots are as unequal as the eigenvalues, whose logarithms majorise theirs. `pivoted` puts the largest remaining
# pivot first, and the most predictable columns, last in it, are coded first; GPTQ's act-order (`sorted`) does nearly
# the reverse. The decoder never learns the order. With MMSE feedback (2.10) holds for all orders, and little depends
# on them.

# %%
weight, sigma = rng.standard_normal((2048, 96)), second_moment(96, 2.0)
spectrum = np.linalg.eigvalsh(sigma)
_, reached, tau = soft(spectrum, 0.1)
step = math.sqrt(12 * 0.1 * tau)
feedback = MMSE(step**2 / 12, 1 / tau)
scheme = lq.Scheme(feedback=feedback, quantizer=Uniform(step, dither=1), equalize=Equalize(exact=True))
layer = lq.quantize(weight, sigma, scheme)
assert abs(layer.distortion(weight, sigma) / reached - 1) < 0.02
assert abs(np.mean(layer.dequantize() ** 2) / tau - 1) < 0.02

mmse = functools.partial(plain, mmse=1.0)
variants = {"plain loop": plain, "gains": functools.partial(plain, shrink=True)}
variants |= {"gains, δ = θ/2": functools.partial(plain, shrink=True, mmse=0.5), "δ = θ": mmse}
variants["δ = θ, 2 sweeps (2.5)"] = functools.partial(mmse, sweeps=2)
curves = {name: [] for name in variants}
for delta in np.geomspace(2e-3, 2.0, 7):
    for name, recipe in variants.items():
        layer = lq.quantize(weight, sigma, recipe(math.sqrt(12 * delta)))
        curves[name].append((gap(layer, weight, sigma), layer.rate))
line = np.array([(CUBIC_GAP + price(spectrum, delta), soft(spectrum, delta)[0]) for delta in np.geomspace(1e-3, 5, 50)])
at_two_bits = {name: np.interp(-2.0, -np.array(curve)[:, 1], np.array(curve)[:, 0]) for name, curve in curves.items()}
assert at_two_bits["plain loop"] > 0.45 > at_two_bits["gains"] > 0.35 > at_two_bits["gains, δ = θ/2"]
assert at_two_bits["δ = θ"] < at_two_bits["gains, δ = θ/2"] - 0.01
assert abs(at_two_bits["δ = θ"] - np.interp(-2.0, -line[:, 1], line[:, 0])) < 0.03

rough = [lq.quantize(weight, sigma, recipe(2.0)) for recipe in (plain, mmse)]
refitted = [
    lq.refit(layer, weight, sigma).distortion(weight, sigma) / layer.distortion(weight, sigma) for layer in rough
]
assert refitted[0] < 0.98 < 0.999 < refitted[1] <= 1

skewed = sigma * np.outer(scale := np.exp(0.5 * rng.standard_normal(96)), scale)
for recipe, low, high in ((plain, 0.2, 0.7), (mmse, 0.0, 0.1)):
    layers = [lq.quantize(weight, skewed, recipe(2.0, order=order)) for order in ("pivoted", "natural", "sorted")]
    pivoted, natural, act_order = (gap(layer, weight, skewed) for layer in layers)
    assert pivoted < natural < act_order
    assert low < act_order - pivoted < high

# %% [markdown]
# ## 2.5 Sweeps: below the cube
#
# Once all columns are rounded, each may be rounded again given all others. In $\hat w_i$ alone, (2.6) is
# $H_{ii} (t_i - \hat w_i)^2$ plus a constant, with
#
# $$ t_i = T_i + \sum_{j \ne i} (T_j - \hat w_j)\, H_{ji} / H_{ii} , \tag{2.11} $$
#
# so rounding $t_i$ to the nearest reconstruction never raises the form: coordinate descent. Visited from last to
# first, the columns $j > i$ are already new: a sweep is the loop (2.1) once more, with the unit lower triangular
# factor $\operatorname{tril}(H) \operatorname{diag}(H)^{-1}$, started from targets that hold the feedback of the
# columns $j < i$.
#
# How can that beat the cube's 0.2546 bit with plain rounding? Move $T$ by a lattice point, and every step of loop and
# sweeps moves with it. So the targets that end at 0 tile space, and their cell has the volume $c^n$ before and after
# the sweeps. At high rate this volume is all that the rate knows, while the second moment falls: the gap is (1.16)
# with a smaller $G$. Babai's cell is a box, $G = \frac1{12}$; the Voronoi cell of the lattice has the least $G$, and
# moves along one coordinate go part of the way to it. If $H$ is diagonal, the box is the Voronoi cell and nothing is
# won. If its eigenvalues spread far, $H_{ii} \gg d_i$: moves along one coordinate are long in the whitened space and
# seldom pay. In between they win 0.02 to 0.03 bit, and at low rate the price $\operatorname{tr} \hat W J \hat W^\top$
# is part of what they minimise.


# %%
def sweep(target: np.ndarray, h: np.ndarray, found: np.ndarray) -> np.ndarray:
    """Round every column again as (2.11) says, to integers."""
    found = found.copy()
    for i in reversed(range(len(h))):
        found[:, i] = target[:, i]  # no error of its own
        found[:, i] = np.rint(target[:, i] + (target - found) @ h[:, i] / h[i, i])
    return found


passes, cells = (0, 1, 2, 4, 8), {}
target = rng.uniform(-50, 50, (256, 128))
shift = rng.integers(-9, 10, target.shape)
for spread in (0.0, 0.3, 1.0, 2.0):
    h = second_moment(128, spread)
    h /= np.sqrt(np.outer(pivots := ldl(h).pivots, pivots))  # equal pivots
    found = [successive_cancellation(target, ldl(h), Uniform(1.0), sweeps=k).reconstruction for k in passes]
    assert np.array_equal(found[1], sweep(target, h, found[0]))
    moved = successive_cancellation(target + shift, ldl(h), Uniform(1.0), sweeps=1).reconstruction
    assert np.mean(moved != found[1] + shift) < 1e-3  # but for ties of rounding
    moments = np.array([distortion(target - one, h) for one in found])
    assert abs(12 * moments[0] - 1) < 0.02
    assert np.all(np.diff(moments) <= 1e-12)
    cells[spread] = CUBIC_GAP + 0.5 * np.log2(moments / moments[0])
assert cells[0.0][-1] > 0.2545  # the box is the Voronoi cell
assert max(cells[0.3][2], cells[1.0][2]) < 0.24
assert 0.24 < cells[2.0][2] < 0.252

weight, sigma = rng.standard_normal((2048, 128)), second_moment(128, 1.0)
step = math.sqrt(12 * lq.bounds.layer_distortion(sigma, 4.0))
once, swept = (gap(lq.quantize(weight, sigma, mmse(step, sweeps=k)), weight, sigma) for k in (0, 2))
assert swept < CUBIC_GAP - 0.005 < CUBIC_GAP < once  # a whole file of rounded columns below the cube's 0.2546 bit

figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
for (name, curve), style in zip(curves.items(), ("o-", "s-", "D-", "^-", "v-"), strict=True):
    left.plot(*np.array(curve).T[::-1], style, markersize=4, label=name)
left.plot(*line.T[::-1], "k--", linewidth=1, label="0.2546 + price (2.9)")
left.set(xlim=(0, 5.5), ylim=(0, 0.7), xlabel="bits per weight", ylabel="gap (bits)", title="real files, spread 2")
for spread, found in cells.items():
    right.plot(passes, found, "o-", markersize=4, label=f"spread {spread:g}")
right.set(xlabel="sweeps", ylabel="½ log 2πe G (bits)", title="the cell of the loop and its sweeps")
for axis in (left, right):
    axis.axhline(CUBIC_GAP, color="black", linewidth=1, linestyle=":")
    axis.legend()
plt.close(figure)
figure

# %% [markdown]
# ## 2.6 A model is more than its layers
#
# To second order the divergence of a quantized model is a quadratic form of what its layers' errors do to the output,
#
# $$ \tfrac12\, \mathbb E\, \Bigl( \sum_l \delta_l \Bigr)^{\!\top} F \Bigl( \sum_l \delta_l \Bigr) =
#    \tfrac12 \sum_l \mathbb E\, \delta_l^\top F \delta_l + \sum_{l < m} \mathbb E\, \delta_l^\top F \delta_m ,
#    \tag{2.12} $$
#
# and the distortions of the layers are its first sum. The cross terms vanish if errors are unbiased noise, drawn for
# each layer anew. MMSE feedback is not that: at rate $R$ it shrinks a layer's output by about the factor $1 - 4^{-R}$,
# so every $\delta_l$ has a part along the effect of scaling that layer down, and what all layers do together in that
# direction does not average out. The plain loop rounds to the nearest and shrinks only columns without bits. The gap
# of each layer is then larger and the model better: on the embedded language model the divergence at 2 bits is half
# of that with MMSE feedback, and smaller at every rate measured (`benchmarks/claims/language_model.py`). Hence
# `lattq.recipes.UNBIASED`, watersic without MMSE feedback, is what models are quantized with.

# %% [markdown]
# ## 2.7 Targets out of range
#
# Since $\hat W = T - e$, (2.2) says where the targets lie. With $N = U^{-1}$,
#
# $$ T = W + e\,(I - N), \qquad \operatorname{var} t_i = \operatorname{var} w_i + \sum_{j>i} \epsilon_j N_{ji}^2
#    \tag{2.13} $$
#
# for uncorrelated errors of variance $\epsilon_j$. A cell of a fixed size keeps $\epsilon_j$ small whatever $t_j$ is.
# A *finite range* does not: beyond it the error grows with the target, is fed back, and drives the next targets
# further out. (2.2) still holds, and $D$ has no bound that the weights set. With a range of $r$ deviations in every
# column it ends near $1 + r^2$ times that of $\hat W = 0$; behind `Equalize` the range of a column is divided by
# $\sqrt{d_i}$, and the factor by $d_i$.
#
# How large may $N$ be? Damped, $H = \Sigma + \delta I = U \operatorname{diag}(d)\, U^\top$ has $\sum_{j \ge i}
# N_{ji}^2 / d_j = (H^{-1})_{ii} \le 1/\delta$, and $d_j \le H_{jj}$. Hence
#
# $$ \sum_{j \ge i} N_{ji}^2 \le \frac{\max_j H_{jj}}{\delta}, \qquad
#    \sum_{j \ge i} \epsilon_j N_{ji}^2 \le \frac{\max_j \epsilon_j d_j}\delta , \tag{2.14} $$
#
# and nothing bounds it without damping: a column that others determine exactly has pivot 0, its error is free, and
# comes back in these others times its coefficients of regression. A quantizer whose relative error is $4^{-b}$ keeps
# targets within twice the variance of the weights if $\delta$ is $4^{-b} \max_j H_{jj}$: between $10^{-4}$ and 1 of
# the mean diagonal for 1 to 7 bits. What damping costs is small beside that, as the loop then minimises $D + \delta
# \lVert W - \hat W \rVert^2$.
#
# So `quantize` compares $D$ with that of zeros, $\operatorname{tr} W \Sigma W^\top$. Only where it is larger, the
# loop runs again with more damping, a decade at a time, and the best counts: least $D\, 4^R$. Two cases are left:
# schemes without feedback, and steps so coarse that half a cell is more than a weight. For these there is a gain for
# each row, $g_r = \langle \hat w_r, w_r \rangle / \langle \hat w_r, \hat w_r \rangle$ in the inner product of
# $\Sigma$, cut to 0 ... 2 and rounded to 1/128. The distortion of a row is a parabola in its gain,
#
# $$ D_r(g) = D_r(g_r) + (g - g_r)^2 \lVert \hat w_r \rVert^2 , \tag{2.15} $$
#
# and the cut and rounded gain is never farther from $g_r$ than 0 is: **no row ends worse than zero.** `stats` say
# what was done.


# %%
def few_samples(n: int, samples: int) -> np.ndarray:
    """Second moment of fewer samples than inputs."""
    inputs = rng.standard_normal((samples, n))
    return inputs.T @ inputs / samples


weight, sigma = rng.standard_normal((4000, 32)), few_samples(32, 31)
factor = ldl(sigma)
fine = successive_cancellation(weight, factor, Uniform(0.2))
targets = fine.reconstruction + fine.noise
turned = np.linalg.inv(factor.unit)
live = factor.pivots > 0  # a free column gets the codes of 0: its error is the target
free = np.square(turned[~live]).T @ np.mean(fine.noise[:, ~live] ** 2, axis=0)
predicted = 1 + 0.2**2 / 12 * (np.square(turned[live]).sum(axis=0) - 1) + free
assert np.allclose(np.var(targets, axis=0)[live], predicted[live], rtol=0.2)  # (2.13)

for delta in (1e-3, 1e-1):
    damped = ldl(sigma + delta * np.eye(32))
    grown = np.square(np.linalg.inv(damped.unit)).sum(axis=0)
    assert (grown <= (np.diag(sigma).max() + delta) / delta).all()  # (2.14)

zeros = distortion(weight, sigma)
for scheme in (lq.recipes.gptq(2, damping=0.0), lq.recipes.huffman_gptq(10.0), lq.recipes.rtn(2)):
    assert lq.quantize(weight, sigma, scheme).distortion(weight, sigma) <= zeros

# %% [markdown]
# ## 2.8 A second moment in single precision
#
# A Gram matrix that is semidefinite by nature and computed in a dtype of precision $\varepsilon$ is known in each
# entry to about $\varepsilon\, s_i s_j$, with $s_i^2$ the variance of input $i$. In units of the $s_i$ its
# eigenvalues are then off by $n \varepsilon$ at most (Weyl): of fewer samples than inputs, half of the zero ones come
# out negative. Down to $-n \varepsilon$ that is rounding, and beyond it the matrix is no second moment. The least
# $\varepsilon\, 2^k$ that, added in these units to the diagonal, lifts all of them to zero is less than twice the
# most negative one: $D$ moves by no more than that part of $\sum_j s_j^2 \lVert w_j - \hat w_j \rVert^2$. It is done
# once, before any recipe sees $\Sigma$; so all of them accept and refuse the same matrices.

# %%
inputs = rng.standard_normal((20, 48)).astype(np.float32)
gram = inputs.T @ inputs
assert np.linalg.eigvalsh(gram.astype(np.float64))[0] < -1e-7
lifted = lq.linalg.ldl(gram)
assert np.all(lifted.pivots > 0)
assert np.abs((lifted.unit * lifted.pivots) @ lifted.unit.T - gram).max() < 48 * 2.0**-23 * gram.max()

# %% [markdown]
# ## 2.9 Units
#
# In other units of the weights, $W \to g W$, targets and errors of the loop are multiplied by $g$, if the quantizers
# follow: those that take their range from the targets do. What does not is a *stored* number of few exponents.
# Float16 holds full precision from $2^{-14}$ to $2^{16}$ and nothing below $2^{-25}$; weights of $10^{-7}$ have steps
# there. `quantize` hence hands the loop weights whose largest magnitude is in $[1, 2)$: that leaves 14 octaves on
# either side, for small rows and for what (2.13) adds. The power of two costs a byte. As it is exact, codes do not
# depend on the unit, bit for bit. Pivots are divided by $g^2$, so that products of error and pivot, which prices of
# bits are in, stay.

# %%
weight, sigma = np.round(rng.standard_normal((64, 32)) * 4096) / 4096, second_moment(32, 1.0)
for recipe in (lq.recipes.gptq(), lq.recipes.palettize(3), lq.recipes.bitshift(2, memory=6)):
    there, here = (lq.quantize(w, sigma, recipe) for w in (weight * 2.0**-100, weight))
    assert np.array_equal(there.codes, here.codes)
    assert np.array_equal(there.dequantize(np.float64) * 2.0**100, here.dequantize(np.float64))
