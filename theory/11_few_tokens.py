# %% [markdown]
# # 11. Second moments from few samples
#
# The loop of note 2 is told $\Sigma$. Here it is told $H$, an estimate from $N$ samples, while the truth is $\Sigma$:
# what that costs in bits (11.1), why the plain mean of few samples is the worst estimate of all (11.2), how far to
# shrink it (11.3), what is then left of the cost (11.4), and samples that depend on each other (11.5).
#
# Notation is that of notes 1 and 2; $n$ is the number of columns, $\gamma = n / N$; logarithms are binary, $\ln$ is
# natural; AM and GM are arithmetic and geometric means.

# %%
import itertools
import math

import matplotlib.pyplot as plt
import numpy as np
from scipy.special import digamma
from scipy.stats import norm

import lattq as lq
from lattq.linalg import SecondMoment, shrink
from lattq.linalg.shrinkage import intensity

rng = np.random.default_rng(11)


def cost(estimate: np.ndarray, sigma: np.ndarray) -> float:
    """(11.2)."""
    ratios = np.linalg.eigvals(np.linalg.solve(estimate, sigma)).real
    return 0.5 * (math.log2(ratios.mean()) - float(np.log2(ratios).mean()))


def inputs(n: int, rho: float, spread: float) -> np.ndarray:
    """Neighbours correlated by ρ, standard deviations exp(N(0, spread²))."""
    scale = np.exp(spread * rng.permutation(norm.ppf((np.arange(n) + 0.5) / n)))
    return rho ** np.abs(np.subtract.outer(np.arange(n), np.arange(n))) * scale * scale[:, None]


def drawn(sigma: np.ndarray, count: int) -> np.ndarray:
    """Gaussian inputs."""
    return rng.standard_normal((count, len(sigma))) @ np.linalg.cholesky(sigma).T


def moment_of(x: np.ndarray) -> SecondMoment:
    """All that is kept of some inputs."""
    moment = SecondMoment(x.shape[-1])
    moment.update(x)
    return moment


# %% [markdown]
# ## 11.1 What a wrong second moment costs
#
# Let $H = U \operatorname{diag}(d)\, U^\top$ and let the steps be equal after equalizing, so that the rounding error of
# column $i$ is uncorrelated with the others, of variance $\delta / d_i$ (2.1). Then $(W - \hat W)\, U = e$ gives the
# rows of the error the covariance $U^{-\top} \operatorname{diag}(\delta / d)\, U^{-1}$,
#
# $$ \mathbb E\, (W - \hat W)^\top (W - \hat W) / \mathrm{rows} = \delta H^{-1}, \qquad
#    D = \frac \delta n \operatorname{tr} \Sigma H^{-1} . \tag{11.1} $$
#
# The loop makes errors large where $H$ says that they are cheap. At high rate $R = h(W) - \frac12 \log 12\, \delta +
# \frac1{2n} \log \det H$. At equal $D$, in bits over what $H = \Sigma$ needs,
#
# $$ \Delta R = \tfrac12 \log \tfrac1n \operatorname{tr} \Sigma H^{-1} - \tfrac1{2n} \log \det \Sigma H^{-1}
#    = \tfrac12 \log \frac{\mathrm{AM}}{\mathrm{GM}} \text{ of the eigenvalues of } \Sigma H^{-1} . \tag{11.2} $$
#
# It is zero only for $H \propto \Sigma$, does not mind the scale of $H$ nor linear maps of the inputs, and is Stein's
# loss but for the scale. A direction with $H \to 0$ where $\Sigma$ is not has $\mathrm{AM} \to \infty$.

# %%
n, rows, step = 24, 4000, 0.02
sigma = inputs(n, 0.8, 0.7)
weight = rng.standard_normal((rows, n))
found = {}
for name, estimate in (("truth", sigma), ("few", moment_of(drawn(sigma, 60)).matrix), ("identity", np.eye(n))):
    layer = lq.quantize(weight, estimate, lq.recipes.watersic(step, mmse=0.0, sweeps=0))
    found[name] = layer.rate + 0.5 * math.log2(layer.distortion(weight, sigma)), estimate
    # Squares of a uniform error deviate from their mean by 0.9 of it; in the worst case all of an error lies in one.
    foretold = step**2 / 12 * np.trace(sigma @ np.linalg.inv(estimate)) / n
    assert abs(layer.distortion(weight, sigma) / foretold - 1) < 4 * 0.9 / math.sqrt(rows)  # (11.1)
for score, estimate in found.values():
    assert abs(score - found["truth"][0] - cost(estimate, sigma)) < 0.02  # (11.2); columns of codes have headers

# %% [markdown]
# ## 11.2 The plain mean
#
# Let $S$ be the mean of $x x^\top$ over $N$ Gaussian samples. By (11.2) $\Sigma = I$ stands for all. For $N > n + 1$
# the moments of Wishart matrices give $\mathbb E \operatorname{tr} S^{-1} = n N / (N - n - 1)$ and
# $\mathbb E \ln \det S = \sum_i \psi((N - i + 1) / 2) + n \ln (2 / N)$; with both in (11.2)
#
# $$ \overline{\Delta R} \approx \tfrac12 \log \frac N{N - n - 1}
#    + \frac1{2n} \sum_{i=1}^n \Bigl( \tfrac{\psi((N - i + 1)/2)}{\ln 2} + \log \tfrac2N \Bigr)
#    \;\to\; \frac1{2 \ln 2} \Bigl( -\ln (1 - \gamma) - 1 - \tfrac{1 - \gamma}\gamma \ln (1 - \gamma) \Bigr)
#    = \frac{\gamma}{4 \ln 2} + O(\gamma^2) . \tag{11.3} $$
#
# Half an eigenvalue's worth, $1 / 4 \ln 2 = 0.36$ bit for as many samples as columns if the series held; in fact the
# cost goes to infinity there. Eight samples a column cost 0.049 bit, four 0.109, two 0.28. With fewer samples than
# columns $S$ is singular. Its free directions get no rate, errors of any size go there, and on other inputs they are
# not free: no rate mends it. The distortion that is measured with $S$ itself says nothing of all this.


# %%
def plain_cost(n: int, count: int) -> float:
    """(11.3), left."""
    logs = digamma((count - np.arange(n)) / 2) / math.log(2) + math.log2(2 / count)
    return 0.5 * math.log2(count / (count - n - 1)) + 0.5 * float(logs.mean())


def limit_cost(share: float) -> float:
    """(11.3), right."""
    log = math.log1p(-share)
    return (-log - 1 - (1 - share) / share * log) / (2 * math.log(2))


n = 48
for ratio, bits in ((8, 0.049), (4, 0.109), (2, 0.279)):
    tried = [cost(moment_of(drawn(np.eye(n), ratio * n)).matrix, np.eye(n)) for _ in range(20)]
    assert abs(np.mean(tried) - plain_cost(n, ratio * n)) < 4 * np.std(tried) / math.sqrt(20) + 0.002  # log of a mean
    assert abs(plain_cost(4000, ratio * 4000) - limit_cost(1 / ratio)) < 1e-3
    assert abs(limit_cost(1 / ratio) - bits) < 0.001
assert abs(limit_cost(1e-3) / (1e-3 / (4 * math.log(2))) - 1) < 1e-3

# %% [markdown]
# ## 11.3 How far to shrink
#
# Shrinking moves $S$ to a target that few samples know well. Inputs of layers have columns whose variances differ by
# orders of magnitude, so a multiple of $I$ is a poor target, and moving to it by one number is led by the largest
# columns. Variances and correlations are shrunk apart: with $s_i = S_{ii}$ and $r_{ij} = S_{ij} / \sqrt{s_i s_j}$,
#
# $$ v_i = (1 - \beta)\, s_i + \beta\, \bar s, \qquad H_{ii} = v_i, \qquad
#    H_{ij} = (1 - \alpha)\, r_{ij} \sqrt{v_i v_j} . \tag{11.4} $$
#
# $H$ is positive definite for every $\alpha > 0$ and $\beta > 0$, as $(1 - \alpha)\, r + \alpha I$ is.
#
# **Correlations.** In units of the standard deviations a product $x_i x_j$ of Gaussians has the variance
# $1 + \rho_{ij}^2$. Over the $M = n (n - 1)$ entries with $P = \sum \rho_{ij}^2$, the expected squared error
# $(1 - \alpha)^2 (M + P) / N + \alpha^2 P$ is least at
#
# $$ \alpha = \frac{M + P}{M + P + N P} = \frac{M + P}{N R}, \qquad
#    \mathbb E \sum r_{ij}^2 = R = P + \frac{M + P}N , \tag{11.5} $$
#
# as Ledoit and Wolf found, with the count in place of fourth moments, as in the oracle of Chen et al. $P$ comes from
# the second equation, $\hat P = \max(0, (N R - M) / (N + 1))$ with the measured $R$. One sample has $r_{ij} = \pm 1$
# and $R = M$, so $\hat P = 0$ and $\alpha = 1$: it says nothing of correlations.
#
# **Variances** are few and not Gaussian: one huge input in a hundred is common. Their noise is measured, for the price
# of $n$ numbers, by the fourth powers:
#
# $$ \beta = \frac{\sum_i \bigl( \overline{x_i^4} - s_i^2 \bigr) / (N - 1)}{\sum_i (s_i - \bar s)^2} \le 1,
#    \tag{11.6} $$
#
# and $\beta = 1$ for one sample. Weighted samples count as $N = (\sum w)^2 / \sum w^2$. Both intensities are $O(1 /
# N)$: the limit is $S$.

# %%
sigma = inputs(n, 0.6, 0.5)
scale = np.sqrt(np.diag(sigma))
true = sigma / scale / scale[:, None]
outside = ~np.eye(n, dtype=bool)
power, entries = float(np.sum(true[outside] ** 2)), float(n * (n - 1))
for count in (10, 50, 300):
    tried = [moment_of(drawn(true, count)).matrix[outside] for _ in range(100)]
    seen = np.mean([np.sum(one**2) for one in tried])
    assert abs(seen / (power + (entries + power) / count) - 1) < 0.05  # (11.5), right
    pulls = np.linspace(0, 1, 201)
    errors = np.mean([[np.sum(((1 - a) * one - true[outside]) ** 2) for a in pulls] for one in tried], axis=0)
    best = pulls[np.argmin(errors)]
    assert abs(best - (entries + power) / (entries + power + count * power)) < 0.02  # (11.5), left
    assert abs(best - intensity(seen, entries, float(count))) < 0.05  # 100 draws of R, which counts again in P
one = drawn(sigma, 1)
assert np.allclose(moment_of(one).shrunk().matrix, np.mean(one**2) * np.eye(n))
many = moment_of(drawn(sigma, 50_000))
assert (
    np.abs(many.shrunk().matrix / np.sqrt(np.outer(scale, scale) ** 2) - many.matrix / np.outer(scale, scale)).max()
    < 0.01
)

# %% [markdown]
# ## 11.4 What is left of the cost
#
# One sample leaves $H \propto I$: errors that are white in the weights, as those of rounding to nearest. From there the
# cost falls with every sample, where the plain mean is infinite up to $N = n$.
#
# The price is paid where $\Sigma$ is ill-conditioned. Squared errors of entries are not (11.2), and (11.5) does not see
# how small an eigenvalue is that $\alpha$ lifts: with $\rho = 0.9$ and 10 samples a column it costs 0.06 bit more than
# the plain mean, with $\rho = 0.6$ it gains 0.01. Inputs of real layers are of both kinds, and depend on each other
# (11.5), which asks for more shrinking; what wins is measured in models. Choosing $\alpha$ for (11.2) by generalized
# cross-validation is right for independent samples and fails with the others. All this is $O(\gamma)$, and goes to
# zero.
# %%
counts = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 4096]
settings = {"ρ = 0.6, spread 0.5": (0.6, 0.5), "ρ = 0.9, spread 1": (0.9, 1.0), "white": (0.0, 0.0)}
figure, axes = plt.subplots(1, 3, figsize=(11, 3.4), layout="constrained", sharey=True)
for axis, (name, (rho, spread)) in zip(axes, settings.items(), strict=True):
    sigma = inputs(n, rho, spread)
    flat = cost(np.eye(n), sigma)
    shrunk, plain, best = [], [], []
    for count in counts:
        moments = [moment_of(drawn(sigma, count)) for _ in range(8)]
        shrunk.append(np.mean([cost(one.shrunk().matrix, sigma) for one in moments]))
        plain.append(np.mean([cost(one.matrix, sigma) for one in moments]) if count > n else math.inf)
    axis.loglog(counts, np.maximum(plain, 1e-4), "o-", label="plain mean", markersize=3)
    axis.loglog(counts, np.maximum(shrunk, 1e-4), "o-", label="shrunk", markersize=3)
    axis.axhline(max(flat, 1e-4), color="black", linestyle=":", label="identity")
    axis.set(title=name, xlabel="samples for 48 columns")
    assert max(shrunk) < flat + 0.02
    assert all(after < before + 0.005 for before, after in itertools.pairwise(shrunk))
    assert all(s < p for s, p, count in zip(shrunk, plain, counts, strict=True) if count < 2 * n)
    excess = shrunk[counts.index(512)] - plain[counts.index(512)]
    assert excess < (0.07 if rho == 0.9 else -0.005)
    assert shrunk[-1] < 0.012
axes[0].set(ylabel="cost, bits per weight")
axes[0].legend()
plt.show()

# %% [markdown]
# ## 11.5 Tokens of one window
#
# Tokens that depend on each other tell less than their number. If windows are independent and products of the tokens
# inside a window have correlations $c_k$ at distance $k$, the variance of a mean over windows of length $T$ is that of
#
# $$ N_\mathrm{eff} = \frac{N}{1 + 2 \sum_{k=1}^{T-1} (1 - k / T)\, c_k} \tag{11.7} $$
#
# independent ones. For a Gaussian sequence with correlation $a^k$, $c_k = a^{2k}$. With the number of tokens for
# $N_\mathrm{eff}$, (11.5) shrinks too little by the factor of (11.7). The cost is flat around the best $\alpha$: with
# $a = 0.7$ the factor is 2.8, and knowing it moves the cost by less than 0.02 bit, where the plain mean costs twice as
# much. So the tokens are counted, and the factor is left out.

# %%
sigma, a, length, windows = inputs(n, 0.6, 0.5), 0.7, 32, 4
factor = 1 + 2 * sum((1 - k / length) * a ** (2 * k) for k in range(1, length))
root, tried, ignored, known, plain = np.linalg.cholesky(sigma), [], [], [], []
for _ in range(60):
    state = rng.standard_normal((windows, length, n))
    for t in range(1, length):
        state[:, t] = a * state[:, t - 1] + math.sqrt(1 - a**2) * state[:, t]
    moment = moment_of(state @ root.T)
    tried.append(moment.matrix)
    ignored.append(cost(moment.shrunk().matrix, sigma))
    known.append(cost(shrink(moment.matrix, moment.count / factor).matrix, sigma))
    plain.append(cost(moment.matrix, sigma))
spread = np.mean((np.array(tried) - sigma) ** 2, axis=0).sum()
independent = (np.trace(sigma) ** 2 + np.sum(sigma**2)) / (windows * length)
assert abs(spread / independent / factor - 1) < 0.15  # (11.7)
assert 2 < factor < 3
assert max(np.mean(known), np.mean(ignored)) < 0.6 * np.mean(plain)
assert abs(np.mean(known) - np.mean(ignored)) < 0.02

# %% [markdown]
# ## 11.6 Sensitivities
#
# The steps of layers are scaled by $g_l^{-1/2}$, the mean squared derivatives of the score. An error $\epsilon_l$ of
# $\log g_l$ moves the bits of layer $l$ by $\frac12 (\epsilon_l - \bar\epsilon)$ and costs, as (11.2) does,
#
# $$ \tfrac12 \log \overline{2^{-\epsilon}} + \tfrac12 \bar\epsilon
#    \approx \tfrac{\ln 2}{4} \operatorname{var} \epsilon , \tag{11.8} $$
#
# means over weights: 0.04 bit for errors by a factor of $\sqrt 2$. A $g_l$ is a mean over all outputs of a layer, so a
# few tokens suffice, but for one case: the first token of a window attends to itself alone, whatever queries and keys
# are, and says that they do not matter. Counting one more token, of the mean over layers, keeps the bits in bounds.

# %%
errors = 0.5 * rng.standard_normal(100_000)
exact = 0.5 * math.log2(np.mean(2.0**-errors)) + 0.5 * errors.mean()
assert abs(exact / (math.log(2) / 4 * errors.var()) - 1) < 0.05  # (11.8)
assert abs(math.log(2) / 4 * 0.5**2 - 0.043) < 1e-3
