# %% [markdown]
# # 6. Products and number formats
#
# Where both factors of a product are quantized, what counts is the error of the product. This note derives its least
# value (6.1) and the best scalar levels for it (6.2). Hardware has neither lattices nor entropy coders but number
# formats of 4 to 8 bits: how far they are from the bound is computed, not simulated (6.3), also with the scales of
# blocks (6.4). Below one bit, some of the coordinates are better than all (6.5).
#
# Logarithms are binary unless written $\ln$; all sources are $N(0, 1)$ unless said otherwise.

# %%
import math

import matplotlib.pyplot as plt
import numpy as np
from scipy.special import ndtr

import lattq as lq
from lattq import bounds
from lattq.quantizers.multiplicative import multiplicative_dither

rng = np.random.default_rng(6)

# %% [markdown]
# ## 6.1 Both factors quantized
#
# $A$ and $B$ have $n$ rows of independent entries and are described apart, with $R$ bits per entry each. The error
# $\lVert \hat C - A^\top B \rVert^2$ is measured in units of $\lVert A \rVert^2 \lVert B \rVert^2 / n$, what one makes
# by $\hat C = 0$.
#
# A good code turns $a$ into $\hat a = (1 - D) a + $ noise, with $D = 4^{-R}$ and $\mathbf E\, a \hat a =
# \mathbf E\, \hat a^2 = 1 - D$. Of the product $\hat A^\top \hat B$ then explains $(1 - D_a)(1 - D_b)$, and the error
# with equal rates is
#
# $$ \varphi(D) = 1 - (1 - D)^2 = 2 D - D^2 . \tag{6.1} $$
#
# At low rate what is explained grows as $R^2$: the first bits are worth nothing, as both factors are needed. Better
# are few coordinates at a higher rate. After a rotation all are alike; a fraction $\kappa$ of them at the rate
# $r = R / \kappa$ explains $R\, (1 - 4^{-r})^2 / r$. So, with $R^*$ where $(1 - 4^{-r})^2 / r$ is largest,
#
# $$ \Gamma(R) = \begin{cases} 2 \cdot 4^{-R} - 16^{-R} & R \ge R^* \\
#    1 - (1 - \varphi(4^{-R^*}))\, R / R^* & R < R^* , \end{cases} \tag{6.2} $$
#
# $$ 4^{R^*} = 1 + 4 R^* \ln 2, \qquad R^* = 0.906324 . \tag{6.3} $$
#
# The lower case is the tangent from $(0, 1)$, and $\Gamma$ the convex hull. Ordentlich and Polyanskiy (2024) show that
# no pair of encoders has a smaller error on Gaussian factors, and that nested lattices reach it.
#
# **Two rates.** The same scheme with $R_a$ and $R_b$ has the error
#
# $$ 1 - \max_{\kappa \le 1} \kappa\, (1 - 4^{-R_a / \kappa}) (1 - 4^{-R_b / \kappa}) , \tag{6.4} $$
#
# which is $D_a + D_b - D_a D_b$ if $\kappa = 1$ is best. With one factor known it is: $4^{-R_a}$, and sketches gain
# nothing.
#
# **Without bias.** If reconstructions are scaled to $a + $ noise of power $D / (1 - D) = 1 / (4^R - 1)$, the errors of
# the factors and their product add:
#
# $$ \frac 2{4^R - 1} + \frac 1{(4^R - 1)^2} = \frac{2 \cdot 4^R - 1}{(4^R - 1)^2} . \tag{6.5} $$
#
# At one bit this is 0.78 where (6.2) has 0.44.

# %%
star = bounds.product.PRODUCT_CRITICAL_RATE
grid = np.linspace(0.01, 4, 4000)
explained = (1 - 4.0**-grid) ** 2 / grid
assert abs(grid[np.argmax(explained)] - star) < 1e-3
assert math.isclose(4**star, 1 + 4 * star * math.log(2), rel_tol=1e-14)
gamma = np.asarray(bounds.product_distortion(grid))
assert np.all(np.diff(gamma, 2) > -1e-12)
assert np.all(gamma <= 1 - (1 - 4.0**-grid) ** 2 + 1e-15)
assert abs(float(bounds.product_distortion(0.5)) - 0.7177) < 1e-4
assert abs(float(bounds.unbiased_product_distortion(1.0)) - 0.7778) < 1e-4
assert bounds.product.two_rate_product_distortion(0.3, 50.0) == bounds.one_sided_product_distortion(0.3)


def product_error(a: np.ndarray, b: np.ndarray, a_hat: np.ndarray, b_hat: np.ndarray) -> float:
    """‖Ĉ - AᵀB‖² over ‖A‖² ‖B‖² / n."""
    error = a_hat.T @ b_hat - a.T @ b
    return float(np.sum(error**2) * len(a) / np.sum(a**2) / np.sum(b**2))


a, b = rng.standard_normal((2, 4096, 128))
channel = {}
for rate in (0.25, 0.5, 0.75, 1.0, 1.5, 2.0):
    power = 4.0 ** -max(rate, star)
    kept = (np.arange(len(a)) < round(len(a) * min(1, rate / star)))[:, None]
    noise = math.sqrt(power * (1 - power)) * rng.standard_normal((2, *a.shape))
    shrunk = (1 - power) * np.stack([a, b]) + noise
    channel[rate] = product_error(a, b, *(kept * shrunk))
    assert abs(channel[rate] - float(bounds.product_distortion(rate))) < 0.012  # 128² entries: four standard errors

# %% [markdown]
# ## 6.2 Scalar levels for products
#
# Many scalar levels with density $N \lambda(x)$ have the squared error $1 / 12 N^2 \lambda^2$ at $x$. In a product it
# is multiplied by the square of the partner, so by $\mathbf E[y^2 \mid x] = 1 - \rho^2 + \rho^2 x^2$ for a correlation
# $\rho$. The density that minimises $\int f\, \mathbf E[y^2 \mid x] / \lambda^2$ is the cube root of the numerator:
#
# $$ \lambda(x) \propto e^{-x^2 / 6} \left( 1 - \rho^2 + \rho^2 x^2 \right)^{1/3} . \tag{6.6} $$
#
# For independent factors it is that of Panter and Dite: a product asks for no other levels than its factors. Above
# $|\rho| = 1 / \sqrt 3$ it has two peaks, at $x^2 = 3 - 1 / \rho^2$.

# %%
x = np.linspace(-8, 8, 16001)
for rho, peak in ((0.0, 0.0), (0.5, 0.0), (0.8, math.sqrt(3 - 1 / 0.64))):
    density = np.asarray(bounds.format_error.product_point_density(x, rho))
    assert abs(np.trapezoid(density, x) - 1) < 1e-4
    assert abs(abs(x[np.argmax(density)]) - peak) < 2e-3

# %% [markdown]
# ## 6.3 Integers and floating point
#
# **Integers** scaled to the largest of $n$ entries, $m$, have the step $2 m / 2^R$ and the error
#
# $$ \frac{m^2}3\, 4^{-R}, \qquad \text{loss} = \tfrac12 \log \frac{\mathbf E\, m^2}3 \approx \tfrac12 \log
#    \frac{2 \ln n}3 : \tag{6.7} $$
#
# they pay for the extremes, a little more for each entry that shares the scale (1.22).
#
# **Floating point** has steps in proportion to the number. With $M$ mantissa bits the significand
# $s = |x| / 2^e \in [1, 2)$ is rounded to multiples of $2^{-M}$. Let $\log |x|$ be uniform modulo 1, as the
# multiplicative dither $2^U Q(2^{-U} x)$ makes it for any $x$. Then $s$ has the density $1 / (s \ln 2)$, and
#
# $$ \frac{\mathbf E\, (x - Q(x))^2}{x^2} = \int_1^2 \frac{(s - Q(s))^2}{s^2}\, \frac{ds}{s \ln 2} \approx
#    \frac{4^{-M}}{12} \int_1^2 \frac{ds}{s^3 \ln 2} = \frac{4^{-M}}{32 \ln 2} = 0.0451 \cdot 4^{-M} . \tag{6.8} $$
#
# The integral itself is 0.010723, 0.0027805 and 0.00070205 for $M = 1, 2, 3$. A format of $R = 1 + E + M$ bits whose
# ends are never reached loses
#
# $$ 1 + E + M + \tfrac12 \log \left( 0.0451 \cdot 4^{-M} \right) = E - 1.236 \text{ bits} , \tag{6.9} $$
#
# whatever the variance. E2 would be as good as integers scaled to the largest of 170 entries (76 by the asymptote), and
# each further exponent bit is spent on a range that a Gaussian does not need. Averaged over an octave of scales the law
# is exact for a Gaussian too, but for overflow and underflow. E2M1 has both: at its best scale it loses 0.85 bit, where
# (6.8) says 0.73 for $M = 1$, and 4-bit integers at theirs lose 0.86.

# %%
for mantissa, known in ((1, 0.0107234), (2, 0.0027805), (3, 0.00070205)):
    assert abs(bounds.format_error.floating_point_distortion(mantissa) - known) < 5e-8
for mantissa in (4, 6, 8):
    law = bounds.format_error.floating_point_distortion(mantissa) * 4.0**mantissa * 32 * math.log(2)
    assert abs(law - 1) < 4.0**-mantissa
assert abs(bounds.format_error.floating_point_loss(2, 12) - (2 - 1.236)) < 1e-3
octave = np.exp2((np.arange(16) + 0.5) / 16)
for number, mantissa in ((bounds.formats.E4M3FN, 3), (bounds.formats.E5M2, 2)):
    mean = np.mean([bounds.format_distortion(number, scale=scale) for scale in octave])
    assert abs(mean / bounds.format_error.floating_point_distortion(mantissa) - 1) < 1e-3
for value in (1.0, 1.37, 25.0):
    dithered = multiplicative_dither(np.full((40_000, 1), value), bounds.formats.E4M3FN, seed=1)
    squares = (dithered / value - 1) ** 2
    assert abs(squares.mean() - bounds.format_error.floating_point_distortion(3)) < 4 * squares.std() / 200

sizes = [2, 4, 8, 16, 32, 64, 128, 170, 512, 2048, 8192, 32768]
integers = [0.5 * math.log2(bounds.absmax.expected_squared_maximum(n) / 3) for n in sizes]
assert abs(integers[sizes.index(170)] - (2 - 1.236)) < 1e-3
assert abs(bounds.absmax.absmax_asymptotic_loss(76) - (2 - 1.236)) < 3e-3
best = {name: bounds.number_format(name) for name in ("e2m1fn", "int4")}
best = {
    name: bounds.format_loss(number, scale=bounds.format_error.best_format_scale(number))
    for name, number in best.items()
}
assert abs(best["e2m1fn"] - 0.850) < 1e-3
assert abs(best["int4"] - 0.861) < 1e-3
assert abs(bounds.format_error.floating_point_loss(2, 1) - 0.728) < 1e-3

# %% [markdown]
# More than half of what E4M3 loses, 2.76 bits, is the fixed length: its codes have an entropy of 6.45 bits. With an
# entropy coder 1.21 bits are left, for steps that are not equal; equal ones leave 0.2546 (1.16).

# %%
edges = np.concatenate([[-np.inf], bounds.formats.E4M3FN.thresholds, [np.inf]])
probabilities = np.diff(ndtr(edges))
probabilities = probabilities[probabilities > 0]
entropy = -float(probabilities @ np.log2(probabilities))
coded = entropy - bounds.gaussian_rate(1.0, bounds.format_distortion(bounds.formats.E4M3FN))
assert abs(bounds.format_loss(bounds.formats.E4M3FN) - 2.764) < 1e-3
assert abs(entropy - 6.45) < 0.01
assert abs(coded - 1.214) < 1e-3

# %% [markdown]
# ## 6.4 Blocks
#
# A block of $n$ numbers shares a scale $s(m)$ that depends on its largest magnitude $m$. Given $m$, the others are
# independent Gaussians cut to $[-m, m]$. With $p(m)$ the density of the largest and $Q_s$ the rounding to $s$ times the
# nearest value of the format,
#
# $$ D = \int p(m) \left[ \frac{n - 1}n \int_{-m}^m \frac{(x - Q_{s(m)}(x))^2 \phi(x)}{P(|x| < m)}\, dx +
#    \frac{(m - Q_{s(m)}(m))^2}n \right] dm . \tag{6.10} $$
#
# Scales E8M0 are powers of two that put $m$ into the last octave of the format: what lies between the largest value and
# the end of that octave is cut, and the error depends on the variance, by octaves. Scales E4M3 have three mantissa
# bits; weights are scaled as a whole beforehand, so that the largest one just fits. Integrated exactly and measured on
# files of $2^{18}$ weights:

# %%
weight = rng.standard_normal((2048, 128))
table = {}
for name, block in bounds.BLOCK_FORMATS.items():
    layer = lq.quantize(weight, np.eye(128), lq.recipes.block_format(name, fit="range"))
    gain = getattr(layer.transform, "scale", 1.0)
    expected = bounds.block_distortion(block, variance=gain**2) / gain**2
    squares = np.mean(((weight - layer.dequantize(np.float64)) ** 2).reshape(-1, block.size or 1), axis=1)
    table[name] = (block.rate, expected, squares.mean(), block.rate + 0.5 * math.log2(expected))
    assert abs(squares.mean() - expected) < 4 * squares.std() / math.sqrt(len(squares)) + 1e-6
    assert 0 < layer.rate - block.rate < 0.01

# %% [markdown]
# | format | bits, scales included | $D$ by (6.10) | measured | loss, bits |
# |---|---|---|---|---|
# | MXFP4 | 4.25 | .01322 | .01323 | 1.129 |
# | NVFP4 | 4.5 | .00904 | .00898 | 1.106 |
# | NF4, 64 | 4.25 | .00846 | .00836 | .807 |
# | MXFP6, E2M3 | 6.25 | .000805 | .000805 | 1.111 |
# | MXFP6, E3M2 | 6.25 | .002911 | .002924 | 2.038 |
# | MXFP8, E4M3 | 8.25 | .000862 | .000870 | 3.160 |
# | MXFP8, E5M2 | 8.25 | .002911 | .002924 | 4.038 |
# | MXINT8 | 8.25 | .0000681 | .0000679 | 1.330 |
#
# The losses are gaps to $R(D)$ of one Gaussian; entropy-coded rounding has 0.25 at every rate. E3M2 and E5M2 have the
# same mantissa and the same error: two more exponent bits buy nothing here. E4M3 is even worse than E2M3. With exact
# scales it would be a little better, but powers of two cut a quarter of its last octave, all beyond 448, and of E2M3's
# an eighth.
#
# **In a product** both errors count. Small independent errors of relative power $d$ on either side add to $2 d$, as in
# (6.1), and the effective bits are those at which $\Gamma$ has the error that was measured. (Blocks should run along
# the coordinates that are summed over. For independent entries it makes no difference, and here they run across.)

# %%
exact = {name: bounds.BlockFormat(bounds.number_format(name), 32) for name in ("e4m3fn", "e2m3fn")}
assert bounds.block_distortion(exact["e4m3fn"]) < bounds.block_distortion(exact["e2m3fn"])
effective = {}
for name in ("mxfp4", "nvfp4", "nf4", "mxfp8-e4m3"):
    scheme = lq.recipes.block_format(name, fit="range")
    a_hat, b_hat = (lq.quantize(x, np.eye(128), scheme).dequantize(np.float64) for x in (a, b))
    error = product_error(a, b, a_hat, b_hat)
    assert abs(error / 2 / table[name][1] - 1) < 0.08
    effective[name] = table[name][0], float(bounds.product_rate(error))
    assert abs(effective[name][0] - effective[name][1] - table[name][3]) < 0.06

# %% [markdown]
# So the bits lost in a product are those lost on the factors: MXFP4 on both sides acts like 3.1 bits of the best code.

# %% [markdown]
# ## 6.5 Sketches
#
# To keep a fraction $\kappa = m / n$ of the coordinates is to estimate inner products from $m$ numbers. Let $u, v$ be
# $x, y$ after a random rotation, and $M$ the coordinates kept. For orthogonal $x, y$ the $n$ products $u_i v_i$ sum to
# zero and are alike, with mean square $\lVert x \rVert^2 \lVert y \rVert^2 / n^2$ up to $1 + O(1/n)$; drawn without
# replacement,
#
# $$ \operatorname{Var} \Bigl( \frac nm \sum_{i \in M} u_i v_i \Bigr) = \left( \frac1m - \frac1n \right)
#    \lVert x \rVert^2 \lVert y \rVert^2 . \tag{6.11} $$
#
# Johnson and Lindenstrauss multiply by $m$ independent vectors instead, Gaussian or of signs. Each of the products has
# the variance $\lVert x \rVert^2 \lVert y \rVert^2 + \langle x, y \rangle^2$ (less a little for signs), so
#
# $$ \operatorname{Var} = \frac1m \left( \lVert x \rVert^2 \lVert y \rVert^2 + \langle x, y \rangle^2 \right) ,
#    \tag{6.12} $$
#
# which stays where $m = n$. In units of $\lVert x \rVert^2 \lVert y \rVert^2 / n$, the variance of $\langle x, y
# \rangle$ itself, the two are $1/\kappa - 1$ and $1/\kappa$. Scaled by Wiener's factor, $\kappa$ or $\kappa / (1 +
# \kappa)$, the errors become
#
# $$ 1 - \kappa \quad \text{(rotation)}, \qquad \frac1{1 + \kappa} \quad \text{(independent vectors)} : \tag{6.13} $$
#
# only the rotation reaches the straight part of $\Gamma$. Quantized at a fixed step $\epsilon$, after a scaling by
# $\sqrt{n/m}$ that keeps norms, a sketch has the same quantization error whatever $m$ is, $2 n \sigma^2 \epsilon^2 /
# 12$ for $x, y \sim N(0, \sigma^2 I_n)$: its coordinates are fewer but larger. It costs $\frac12 \log \frac nm$ bits
# more for each, and (6.11).

# %%
size, sigma2, epsilon = 10_240, 1 / 12, 0.1
x, y = math.sqrt(sigma2) * rng.standard_normal((2, size, 64))
errors = {}
for kappa in (1.0, 0.5, 0.1):
    m = round(kappa * size)
    left, right = (epsilon * np.rint(lq.matmul.sketch(z, m, seed=1) / epsilon) for z in (x, y))
    errors[kappa] = (left.T @ right - x.T @ y).ravel()
    quantization = 2 * size * sigma2 * epsilon**2 / 12 + m * (epsilon**2 / 12) ** 2
    derived = quantization + size**2 * sigma2**2 * (1 / m - 1 / size)
    # 4096 products that share 128 columns: four standard errors of the variance and of the fourth moment
    assert abs(np.var(errors[kappa]) / derived - 1) < 4 * math.sqrt(2 / 4096 + 4 / 64 / size)
    kurtosis = np.mean(errors[kappa] ** 4) / np.mean(errors[kappa] ** 2) ** 2
    assert abs(kurtosis - 3) < 4 * math.sqrt(24 / 4096)  # the errors are Gaussian
small = rng.standard_normal((2, 1024, 256))
for kind, expected in (("hadamard", 1 - 0.25), ("gaussian", 1 / 1.25), ("signs", 1 / 1.25)):
    factor = 0.25 if kind == "hadamard" else 0.25 / 1.25
    left, right = (lq.matmul.sketch(z, 256, kind=kind, seed=2) for z in small)
    error = factor * left.T @ right - small[0].T @ small[1]
    assert abs(np.sum(error**2) * 1024 / np.sum(small[0] ** 2) / np.sum(small[1] ** 2) - expected) < 0.02

# %% [markdown]
# At 3.6 bits per coordinate of $N(0, \frac1{12} I_{10240})$ the errors of inner products have the deviation 1.20
# without a sketch; with a tenth of the coordinates, each with 1.7 bits more, 25. Above $R^*$ one never sketches.

# %%
figure, (left, middle, right) = plt.subplots(1, 3, figsize=(14, 4), layout="constrained")
grid = np.linspace(0.02, 4, 300)
left.semilogy(grid, bounds.product_distortion(grid), "k-", label="Γ(R)")
left.semilogy(grid, 1 - (1 - 4.0**-grid) ** 2, ":", color="tab:gray", label="all coordinates kept")
left.semilogy(grid, bounds.one_sided_product_distortion(grid), "--", color="tab:blue", label="one factor known")
high = grid[grid > 0.6]
left.semilogy(high, bounds.unbiased_product_distortion(high), "-.", color="tab:red", label="unbiased")
left.plot(list(channel), list(channel.values()), "o", color="k", markersize=4, label="simulated")
left.plot(star, bounds.product_distortion(star), "s", color="tab:orange", label="R*")
left.set(xlabel="bits per entry of both factors", ylabel="normalised error", title="6.1: products", ylim=(3e-3, 3))
middle.plot(sizes, integers, "o-", markersize=4, label="integers, largest of n (6.7)")
asymptote = [bounds.absmax.absmax_asymptotic_loss(n) for n in sizes[2:]]
middle.plot(sizes[2:], asymptote, ":", color="tab:gray", label="½ log(2 ln n / 3)")
for exponent in (2, 3):
    middle.axhline(exponent - 1.236, linestyle="--", color=f"C{exponent}", label=f"floating point, E{exponent} (6.9)")
middle.set_xscale("log", base=2)
middle.set(xlabel="entries that share a scale", ylabel="loss, bits", title="6.3: many levels, scale uncharged", ylim=0)
for name, (rate, expected, measured, _) in table.items():
    loss = rate + 0.5 * math.log2(measured)
    right.plot(rate + 0.5 * math.log2(expected), rate - 0.5 * math.log2(1 / measured), "o", label=name)
    assert abs(loss - table[name][3]) < 0.02
right.plot([0.5, 4.5], [0.5, 4.5], "k-", linewidth=0.5)
right.set(xlabel="loss by (6.10), bits", ylabel="loss measured, bits", title="6.4: block formats")
for axis in (left, middle, right):
    axis.legend(fontsize="small")
plt.close(figure)
figure
