# %% [markdown]
# # 1. Rate and distortion
#
# How few bits per weight can describe a weight matrix, if the outputs of its layer may be wrong by so much? This note
# derives the yardsticks of `lattq.bounds`: the bound for one Gaussian, for many, and for a linear layer; then the
# price of the simplest codes, rounding with an entropy coder (0.2546 bit) and integers scaled by the largest entry.
#
# Logarithms are binary unless written $\ln$. Rates are bits per weight, distortions squared error per weight.

# %%
import math

import matplotlib.pyplot as plt
import numpy as np

from lattq import bounds

rng = np.random.default_rng(1)

# %% [markdown]
# ## One Gaussian
#
# A code maps $n$ independent draws of a source $X$ to one of $2^{nR}$ reconstructions $\hat X$, with the distortion
#
# $$ D = \frac1n \sum_i \mathbf E (X_i - \hat X_i)^2 . \tag{1.1} $$
#
# Shannon's theorem says which pairs $(R, D)$ can be had as $n$ grows: those above the rate–distortion function
#
# $$ R(D) = \min \{\, I(X; \hat X) \;:\; \mathbf E (X - \hat X)^2 \le D \,\} . \tag{1.2} $$
#
# No code does better at any $n$. A lower bound on $I$ needs two facts: conditioning does not raise entropy, and of
# all densities with second moment $D$ the Gaussian has the largest differential entropy, $\tfrac12 \log 2\pi e D$:
#
# $$ I(X; \hat X) = h(X) - h(X - \hat X \mid \hat X) \ge h(X) - h(X - \hat X) \ge h(X) - \tfrac12 \log 2\pi e D .
#    \tag{1.3} $$
#
# For $X \sim \mathcal N(0, \sigma^2)$, $h(X) = \tfrac12\log 2\pi e\sigma^2$. Equality holds if the error is Gaussian
# and independent of $\hat X$: take $X = \hat X + Z$ with $\hat X \sim \mathcal N(0, \sigma^2 - D)$ and
# $Z \sim \mathcal N(0, D)$. Hence
#
# $$ R(D) = \max\left(0, \tfrac12 \log \frac{\sigma^2}{D}\right), \qquad D(R) = \sigma^2\, 4^{-R}, \tag{1.4} $$
#
# one bit for every 6.02 dB. For any other source (1.3) remains a bound, Shannon's:
#
# $$ R(D) \ge h(X) - \tfrac12 \log 2\pi e D . \tag{1.5} $$

# %%
assert bounds.gaussian_rate(1.0, 1.0 / 16.0) == 2.0
assert bounds.gaussian_distortion(3.0, 2.0) == 3.0 / 16.0
# Of all densities with variance 1 the Gaussian is the hardest to describe: a Laplacian has the entropy log(e √2).
laplacian = math.log2(math.e * math.sqrt(2.0))
assert bounds.shannon_lower_bound(laplacian, 0.01) < bounds.gaussian_rate(1.0, 0.01)

# %% [markdown]
# ## Many Gaussians: reverse waterfilling
#
# Let the components be independent with variances $v_1, \dots, v_n$. Then $h(X) = \sum_i h(X_i)$ while
# $h(X \mid \hat X) \le \sum_i h(X_i \mid \hat X_i)$, so $I(X; \hat X) \ge \sum_i I(X_i; \hat X_i)$: nothing is gained
# by describing components together, and it remains to share the distortion,
#
# $$ \min \; \frac1{2n} \sum_i \log \frac{v_i}{d_i} \quad\text{with}\quad \frac1n \sum_i d_i = D, \quad
#    0 < d_i \le v_i . \tag{1.6} $$
#
# The objective is convex in $d$, so the Karush–Kuhn–Tucker conditions decide: a component either stands at its
# ceiling $v_i$, or its slope $-1/(2 n d_i \ln 2)$ equals that of all others like it. With one level $\theta$ for all
# of them,
#
# $$ d_i = \min(v_i, \theta), \tag{1.7} $$
#
# $$ D(\theta) = \frac1n \sum_i \min(v_i, \theta), \tag{1.8} $$
#
# $$ R(\theta) = \frac1{2n} \sum_i \max\left(0, \log \frac{v_i}{\theta}\right) . \tag{1.9} $$
#
# Once it is known which $v_i$ exceed the level, (1.8) is linear in $\theta$ and (1.9) linear in $\ln\theta$: sorting
# and prefix sums solve both exactly. Dividing the derivatives gives the exchange rate between bits and error, which
# the level alone decides:
#
# $$ \frac{dR}{dD} = -\frac1{2 \theta \ln 2} . \tag{1.10} $$
#
# So several layers share bits best when they have one level in common.

# %%
variances = np.exp(2.0 * rng.standard_normal(200))
filled = bounds.waterfill(variances, distortion=0.2)
described = filled.rates > 0.0
assert np.all(filled.distortions[described] == filled.level)  # (1.7)
assert np.all(filled.distortions[~described] == variances[~described])
assert math.isclose(filled.distortion, 0.2, rel_tol=1e-13)  # (1.8)
assert math.isclose(bounds.waterfilling.distortion_rate(variances, filled.rate), 0.2, rel_tol=1e-12)

change = 1e-5
slope = bounds.rate_distortion(variances, 0.2 + change) - bounds.rate_distortion(variances, 0.2 - change)
assert math.isclose(slope / (2.0 * change), -1.0 / (2.0 * filled.level * math.log(2.0)), rel_tol=1e-6)  # (1.10)

# Any other way to share the same distortion needs more bits.
for _ in range(100):
    shares = filled.distortions * np.exp(0.1 * rng.standard_normal(200))
    shares = np.minimum(shares * (0.2 / shares.mean()), variances)  # the ceiling only lowers the distortion
    assert 0.5 * np.log2(variances / shares).mean() > filled.rate

# %% [markdown]
# ## A linear layer
#
# Rows of $W$ (rows × columns) act on inputs $x$ with second moment $\Sigma = \mathbf E\, x x^\top$. An approximation
# $\hat W$ costs
#
# $$ D = \frac1{\text{rows} \cdot \text{columns}} \operatorname{tr} (W - \hat W)\, \Sigma\, (W - \hat W)^\top .
#    \tag{1.11} $$
#
# Let row $r$ be $\mathcal N(0, \rho_r K)$, rows independent. Then $w_r \Sigma^{1/2}$ is Gaussian with covariance
# $\rho_r\, \Sigma^{1/2} K \Sigma^{1/2}$ and its distortion is plain squared error. A rotation to the eigenbasis
# changes neither. The layer is as hard as independent Gaussians of the variances
#
# $$ \rho_r \lambda_i, \qquad \lambda_i \text{ the eigenvalues of } K^{1/2} \Sigma K^{1/2}, \tag{1.12} $$
#
# which are also those of $\Sigma^{1/2} K \Sigma^{1/2}$; waterfill them all. Directions that no input takes have
# $\lambda_i = 0$ and cost nothing. Neither a rotation of the inputs nor any other invertible change of coordinates,
# $W \to W T^{-1}$ with $\Sigma \to T \Sigma T^\top$ and $K \to T^{-\top} K T^{-1}$, moves the bound: transforms help
# real quantizers, not the limit.

# %%
rows, columns = 48, 32
inputs = rng.standard_normal((4 * columns, columns)) * np.arange(1, columns + 1) ** -0.75
mixing = np.linalg.qr(rng.standard_normal((columns, columns)))[0]
sigma = mixing @ (inputs.T @ inputs / len(inputs)) @ mixing.T
sigma = (sigma + sigma.T) / 2.0
row_variance, column_variance = np.exp(0.5 * rng.standard_normal(rows)), np.exp(0.5 * rng.standard_normal(columns))
row_variance /= row_variance.mean()


def rate(distortion: float) -> float:
    """Bits per weight that this layer needs."""
    return bounds.layer_rate(sigma, distortion, row_variance=row_variance, column_variance=column_variance)


spectrum = np.linalg.eigvalsh(np.sqrt(np.outer(column_variance, column_variance)) * sigma)
for distortion in (1e-4, 1e-3, 1e-2, 1e-1):
    listed = bounds.rate_distortion(np.outer(row_variance, spectrum).ravel(), distortion)
    assert math.isclose(rate(distortion), listed, abs_tol=1e-11)

# A change of coordinates moves nothing.
T = np.eye(columns) + 0.3 * rng.standard_normal((columns, columns)) / math.sqrt(columns)
inverse = np.linalg.inv(T)
mapped, covariance = T @ sigma @ T.T, inverse.T @ np.diag(column_variance) @ inverse
moved = bounds.layer_rate((mapped + mapped.T) / 2.0, 1e-2, row_variance, covariance=(covariance + covariance.T) / 2.0)
assert math.isclose(moved, rate(1e-2), abs_tol=1e-10)

# %% [markdown]
# ## Which variances? Two-way scales
#
# Weights of a trained layer are not identically distributed, but after division by one scale per row and one per
# column they are close to Gaussian. If $w_{rj} \sim \mathcal N(0, \rho_r \kappa_j)$, minus twice the log-likelihood
# is, up to a constant, $\sum_{rj} \ln \rho_r \kappa_j + w_{rj}^2 / (\rho_r \kappa_j)$; its derivatives vanish where
#
# $$ \rho_r = \frac1{\text{columns}} \sum_j \frac{w_{rj}^2}{\kappa_j}, \qquad
#    \kappa_j = \frac1{\text{rows}} \sum_r \frac{w_{rj}^2}{\rho_r} . \tag{1.13} $$
#
# With $u = \ln\rho$ and $\kappa$ eliminated the likelihood is convex, so alternating the two finds its one maximum
# (Sinkhorn's balancing of the squares). A factor can move between the two sides; `two_way_variances` makes the mean
# of $\rho$ equal to 1.
#
# **Fitted variances are a little too small.** At its maximum the sum is $\sum_{rj} \ln \hat\rho_r \hat\kappa_j$ plus
# the number of weights. That is below its value at the true variances, in the mean by the number of free parameters,
# rows + columns − 1 (Wilks). So a bound that takes fitted variances for the true ones is too low: at high rate, where
# it is half the mean of $\log \hat\rho_r \hat\kappa_j$ plus what does not depend on them, by
#
# $$ \frac1{2 \ln 2} \left( \frac1{\text{rows}} + \frac1{\text{columns}} - \frac1{\text{rows} \cdot \text{columns}}
#    \right) \text{ bits,} \tag{1.13b} $$
#
# and a gap to it as much too large: 0.022 bit for 64 × 64 weights, 0.0004 for 4096 × 4096. The other way round, and by
# much more, err weights that are *not independent*: the variances of a row are no more than the diagonal of its
# covariance $K$, and $\det K$ is below their product. Then (1.12) with $K$ is the bound, and the one with variances is
# only a reference. With $\Sigma = K^{-1}$ all $\lambda_i$ are 1, so that $R(D) = \tfrac12 \log 1/D$, and the reference
# is the larger by $\tfrac1{2n} \log (\prod_j K_{jj} / \det K)$ by (1.14), and by more at low rate: 1.6 bit below.

# %%
weight = rng.standard_normal((rows, columns)) * np.sqrt(np.outer(row_variance, column_variance))
fitted_row, fitted_column = bounds.two_way_variances(weight)
normalised = weight**2 / np.outer(fitted_row, fitted_column)
assert np.allclose(normalised.mean(axis=0), 1.0, atol=1e-9)  # (1.13)
assert np.allclose(normalised.mean(axis=1), 1.0, atol=1e-9)
assert math.isclose(fitted_row.mean(), 1.0)

high, true_mean = [], np.log2(np.outer(row_variance, column_variance)).mean()
for _ in range(300):
    draw = rng.standard_normal((rows, columns)) * np.sqrt(np.outer(row_variance, column_variance))
    high.append(0.5 * (np.log2(np.outer(*bounds.two_way_variances(draw))).mean() - true_mean))
bias = (1 / rows + 1 / columns - 1 / (rows * columns)) / (2 * math.log(2))
# (1.13b) is the first order in 1 / rows and 1 / columns; the next is below a tenth of it here.
assert abs(np.mean(high) + bias) < 4 * np.std(high) / math.sqrt(len(high)) + bias / 10

correlated = 0.95 ** np.abs(np.subtract.outer(np.arange(columns), np.arange(columns)))
precision = np.linalg.inv(correlated)
precision = (precision + precision.T) / 2.0
bound = bounds.layer_rate(precision, 0.25, covariance=correlated)
assert math.isclose(bound, 1.0, rel_tol=1e-9)
reference = bounds.layer_rate(precision, 0.25)
assert -0.5 * np.linalg.slogdet(correlated)[1] / math.log(2) / columns < reference - bound
assert abs(reference - bound - 1.6) < 0.1

# %% [markdown]
# ## High rate
#
# Once $\theta$ is below every $\rho_r \lambda_i$, (1.8) says $\theta = D$, and (1.9) becomes
#
# $$ D = \mathrm{GM}(\rho)\, \det(K\Sigma)^{1/n}\, 4^{-R}, \qquad \text{for equal variances} \quad
#    D = \sigma_W^2 \det(\Sigma)^{1/n}\, 4^{-R} , \tag{1.14} $$
#
# with GM the geometric mean. Only the determinant is left of $\Sigma$. At any rate (1.14) is a lower bound of $D$,
# since $\max(0, x) \ge x$ in (1.9). A model that ignores the row scales replaces GM by the arithmetic mean and
# overestimates the rate by $\tfrac12\log(\mathrm{AM}/\mathrm{GM})$; likewise for the columns.


# %%
def spread(values: np.ndarray) -> float:
    """½ log2 of arithmetic over geometric mean."""
    return 0.5 * (math.log2(values.mean()) - np.log2(values).mean())


fine = 0.5 * row_variance.min() * spectrum.min()
pooled = bounds.layer_rate(sigma, fine, column_variance=column_variance.mean())
assert math.isclose(pooled - rate(fine), spread(row_variance) + spread(column_variance), abs_tol=1e-11)
assert math.isclose(bounds.high_rate.high_rate_rate(sigma, fine, column_variance.mean()), pooled, abs_tol=1e-11)
assert bounds.high_rate.high_rate_rate(sigma, 0.1) < bounds.layer_rate(sigma, 0.1)

# %% [markdown]
# ## Cells
#
# Round $X$ to a grid of side $s$ and give the integers to an ideal entropy coder. When the density hardly varies
# within a cell, a cell at $x$ has probability $s f(x)$ and the error is uniform in it:
#
# $$ H \approx h(X) - \log s, \qquad D \approx \frac{s^2}{12} . \tag{1.15} $$
#
# Against (1.5) that costs $\tfrac12 \log \frac{2\pi e}{12} = 0.2546$ bit, whatever the density. In $b$ dimensions,
# cells of a lattice with normalised second moment $G$ (squared error per dimension of a cell of unit volume) replace
# $1/12$:
#
# $$ R - R(D) \approx \tfrac12 \log 2\pi e\, G . \tag{1.16} $$
#
# The ball has the least $G$, which falls to $1/(2\pi e)$ with the dimension: 0.2546 bit is all that any cell can win.
#
# In a layer, successive cancellation rounds column after column so that the errors, seen through
# $\Sigma = U \operatorname{diag}(d)\, U^\top$, stay independent: $D = \frac1n \sum_i d_i s_i^2/12$ with side $s_i$ in
# column $i$, and $R = \frac1n \sum_i (h(W_i) - \log s_i)$. Compare with (1.14), where $\det\Sigma = \prod_i d_i$:
#
# $$ R - R(D) \approx \tfrac12 \log \frac{2\pi e}{12} +
#    \tfrac12 \log \frac{\mathrm{AM}(d_i s_i^2)}{\mathrm{GM}(d_i s_i^2)} . \tag{1.17} $$
#
# Sides proportional to $1/\sqrt{d_i}$ make the second term vanish (WaterSIC); equal sides (GPTQ) pay for it, and
# nothing bounds it.

# %%
assert round(bounds.CUBIC_GAP, 4) == 0.2546
assert math.isclose(bounds.space_filling_gap(1.0 / 12.0), bounds.CUBIC_GAP)
assert round(bounds.space_filling_gap(929.0 / 12960.0), 4) == 0.1460  # E8
assert bounds.space_filling_gap(1.0 / (2.0 * math.pi * math.e)) < 1e-12

pivots = np.diagonal(np.linalg.cholesky(sigma)) ** 2
assert math.isclose(bounds.cancellation_loss(pivots), bounds.CUBIC_GAP + spread(pivots), rel_tol=1e-12)
assert math.isclose(bounds.cancellation_loss(pivots, 1.0 / np.sqrt(pivots)), bounds.CUBIC_GAP, rel_tol=1e-12)

# %% [markdown]
# ## Rounding at every rate
#
# For $X \sim \mathcal N(0, 1)$ nothing need be approximated. With $p_k = \Phi((k+\frac12)s) - \Phi((k-\frac12)s)$,
#
# $$ H = -\sum_k p_k \log p_k . \tag{1.18} $$
#
# The decoder should not put out the midpoint $\hat X = ks$ but $\gamma\hat X$ with the gain of least squares, or best
# the mean of the cell. Let $c = \mathbf E X\hat X$, $q = \mathbf E \hat X^2$:
#
# $$ \gamma = \frac cq, \qquad D_{\text{midpoint}} = 1 - 2c + q, \qquad D_{\text{shrunk}} = 1 - \frac{c^2}{q} .
#    \tag{1.19} $$
#
# For fine steps these differences cancel. The error $X - \hat X$ is a sawtooth of $X$,
# $\frac s\pi \sum_{m \ge 1} \frac{(-1)^{m+1}}m \sin \frac{2\pi m X}s$; its moments follow term by term from the
# characteristic function of the Gaussian (Poisson summation of the sums over cells):
#
# $$ \mathbf E (X - \hat X)^2 = \frac{s^2}{12} + \frac{s^2}{\pi^2} \sum_{m\ge1} \frac{(-1)^m}{m^2}\, e^{-2\pi^2m^2/s^2},
#    \qquad \mathbf E X (X - \hat X) = 2 \sum_{m \ge 1} (-1)^{m+1} e^{-2\pi^2m^2/s^2} . \tag{1.20} $$
#
# So up to terms of order $e^{-2\pi^2/s^2}$ the error is uncorrelated with $X$ and has variance $\nu = s^2/12$
# exactly. Then $D_{\text{shrunk}} = \nu/(1+\nu)$. The integers of $X$ have the entropy of the density of $X + U$, $U$
# uniform in a cell, which is Gaussian of variance $1 + \nu$ up to terms of order $s^8$:
# $H = \tfrac12 \log 2\pi e (1+\nu) - \log s$. In the gap $1+\nu$ cancels: **shrunk rounding loses
# $\tfrac12\log\frac{2\pi e}{12}$, not only in the limit but down to about 1.5 bits**, whereas midpoints lose
# $\tfrac12\log(1+\nu)$ more.

# %%
for wanted, tolerance in ((4.0, 1e-8), (3.0, 1e-7), (2.0, 1e-5), (1.5, 3e-4)):
    point = bounds.entropy_coded_scalar(wanted)
    assert abs(point.gap - bounds.CUBIC_GAP) < tolerance
    midpoint = bounds.entropy_coded_scalar(wanted, reconstruction="midpoint")
    assert abs(midpoint.gap - point.gap - 0.5 * math.log2(1.0 + point.step**2 / 12.0)) < 10.0 * tolerance

one_bit = bounds.entropy_coded_scalar(1.0)
assert (round(one_bit.gap, 3), round(one_bit.gain, 3)) == (0.239, 0.700)
assert round(bounds.entropy_coded_scalar(1.0, reconstruction="midpoint").gap, 3) == 0.453

# Simulated, within four standard errors.
draws = rng.standard_normal(200_000)
integers = np.rint(draws / one_bit.step)
errors = (draws - one_bit.gain * one_bit.step * integers) ** 2
assert abs(errors.mean() - one_bit.distortion) < 4.0 * errors.std() / math.sqrt(len(draws))
share = np.unique(integers, return_counts=True)[1] / len(draws)
deviation = math.sqrt(share @ np.log2(share) ** 2 - one_bit.rate**2)
assert abs(-share @ np.log2(share) - one_bit.rate) < 4.0 * deviation / math.sqrt(len(draws))

# %% [markdown]
# ## Integers without an entropy coder
#
# A fixed-rate quantizer scales a group of $g$ weights by its largest absolute value $m$ and rounds to $L$ levels.
# Given $m$, the others are independent truncated Gaussians, so with the quantizer $Q_m$,
#
# $$ D = \int_0^\infty \left[ \frac{g-1}g\, \frac{\int_{-m}^m (x - Q_m(x))^2 \varphi(x)\,dx}{2\Phi(m) - 1}
#        + \frac{(m - Q_m(m))^2}g \right] g\, (2\Phi(m) - 1)^{g-1}\, 2\varphi(m)\, dm . \tag{1.21} $$
#
# For many levels the step is $2m/L$, the error $m^2/(3L^2)$, and since $\mathbf E m^2 \approx 2\ln g$ the loss is
#
# $$ R - R(D) \approx \tfrac12 \log \frac{\mathbf E m^2}3 \approx \tfrac12 \log \frac{2 \ln g}3 , \tag{1.22} $$
#
# without the bits of the scale: it grows with the group, slowly and without bound, while a small group pays for its
# scale. In between, at 128 weights with a scale of 16 bits, four-bit integers still lose 0.95 bit.

# %%
group, levels = 64, 16
sample = rng.standard_normal((20_000, group))
step = 2.0 * np.abs(sample).max(axis=1, keepdims=True) / (levels - 1)
codes = np.clip(np.rint(sample / step), -levels // 2, levels // 2 - 1)
per_group = ((sample - step * codes) ** 2).mean(axis=1)
model = bounds.absmax_distortion(levels, group)
assert abs(per_group.mean() - model) < 4.0 * per_group.std() / math.sqrt(len(sample))  # (1.21)

for size, loss in ((128, 0.72), (1024, 1.00), (4096, 1.14), (14336, 1.25)):  # (1.22)
    assert round(0.5 * math.log2(bounds.absmax.expected_squared_maximum(size) / 3.0), 2) == loss
    assert bounds.absmax.absmax_asymptotic_loss(size) > loss
best = min((2**k for k in range(2, 13)), key=lambda size: bounds.absmax_loss(16, size, scale_bits=16.0))
assert best == 128
assert round(bounds.absmax_loss(16, best, scale_bits=16.0), 2) == 0.95

# %% [markdown]
# ## The picture
#
# Left: waterfilling. What is above the level is described, at the cost of half a bit for every factor of two. Middle:
# the curves of one Gaussian. Right: their distance from the bound, in bits.

# %%
steps = np.geomspace(0.045, 8.0, 120)
curves = {
    "rounded, midpoints": [bounds.entropy_coded_scalar(step=s, reconstruction="midpoint") for s in steps],
    "rounded, shrunk": [bounds.entropy_coded_scalar(step=s) for s in steps],
}
points = {
    "rounded, midpoints": np.array([(p.rate, p.distortion) for p in curves["rounded, midpoints"]]),
    "rounded, shrunk": np.array([(p.rate, p.distortion) for p in curves["rounded, shrunk"]]),
}
for size in (128, 4096):
    grid = np.array([4, 6, 8, 12, 16, 24, 32, 48, 64])
    distortions = [bounds.absmax_distortion(int(n), size) for n in grid]
    points[f"absmax integers, groups of {size}"] = np.stack([np.log2(grid) + 16.0 / size, distortions], axis=1)

figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
shown = np.sort(variances)[::-5]
level = bounds.waterfill(shown, rate=1.0).level
left.bar(np.arange(len(shown)), shown, color="tab:blue", label="described")
left.bar(np.arange(len(shown)), np.minimum(shown, level), color="lightgray", label="distortion")
left.axhline(level, color="black", linewidth=1)
left.set(yscale="log", xlabel="component", ylabel="variance", title="level θ at 1 bit per component")
left.legend()

rates = np.linspace(0.0, 6.0, 50)
middle.plot(rates, [10 * math.log10(bounds.gaussian_distortion(1.0, r)) for r in rates], "k", label="bound R(D)")
for (name, curve), style in zip(points.items(), ("--", "-", "o", "s"), strict=True):
    middle.plot(curve[:, 0], 10 * np.log10(curve[:, 1]), style, markersize=4, label=name)
    right.plot(curve[:, 0], curve[:, 0] + 0.5 * np.log2(np.minimum(curve[:, 1], 1.0)), style, markersize=4, label=name)
middle.set(xlim=(0, 6), ylim=(-36, 1), xlabel="bits per weight", ylabel="distortion (dB)", title="one Gaussian")
middle.legend(fontsize=8)
right.axhline(bounds.CUBIC_GAP, color="black", linewidth=1, linestyle=":")
right.text(3.9, bounds.CUBIC_GAP - 0.07, "½ log2(2πe/12)")
right.set(xlim=(0, 6), ylim=(0, 1.4), xlabel="bits per weight", ylabel="gap to R(D) (bits)", title="what is lost")
plt.close(figure)  # shown once, as the value of this cell
figure
