# %% [markdown]
# # 12. Diagonal dominance
#
# A layer $y = W x$ is the layer $W A^\top$ on inputs that, as rows, became $X A^{-1}$. AffineQuant learns $A$ and
# argues that it stays invertible because it is strictly diagonally dominant. This note says what dominance gives (12.1,
# 12.2), what it can never do, and the reference that does it (12.3), how it is enforced (12.4), that inverses are then
# easy (12.5), and why a gradual mask does not enforce it (12.6).

# %%
import math

import matplotlib.pyplot as plt
import numpy as np

import lattq as lq
from lattq.affine.dominance import certify
from lattq.affine.inverses import factor, newton_schulz, newton_schulz_steps, solve_error
from lattq.affine.maps import AffineMap
from lattq.affine.schedules import gradual_mask, growing_ratio, stable_factor
from lattq.linalg.hadamard import hadamard_matrix

rng = np.random.default_rng(0)


def mixing(n: int, ratio: float, both: bool = False) -> np.ndarray:
    """I + N with random N; rows, or rows and columns, of absolute sum at most the ratio."""
    off = rng.standard_normal((n, n)) * (1 - np.eye(n))
    off *= ratio / np.abs(off).sum(axis=1, keepdims=True)
    return np.eye(n) + (off * ratio / max(np.abs(off).sum(axis=0).max(), ratio) if both else off)


# %% [markdown]
# ## 12.1 What a dominant matrix is certain of
#
# Write $A = D (I + N)$ with $D$ the diagonal, $n_{ii} = 0$ and $r_i = \sum_j |n_{ij}|$. The rows are strictly dominant
# if $\rho = \max r_i < 1$. Multiplying rows changes $D$ and leaves $N$: dominance constrains $N$ alone.
#
# **Invertible, and how well** (Levy 1881, Desplanques 1887; Ahlberg and Nilson 1963, Varah 1975). Let
# $\lVert x \rVert_\infty = |x_i|$. Then $|(A x)_i| \ge |d_i| |x_i| - |d_i| r_i |x_i|$, so
#
# $$ \lVert A^{-1} \rVert_\infty \le \frac{1}{\min_i |d_i| (1 - r_i)} , \qquad
#    \kappa_\infty(I + N) \le \frac{1 + \rho}{1 - \rho} .  \tag{12.1} $$
#
# Columns give the same for $\lVert \cdot \rVert_1$. In the 2-norm, rows and columns together give
# $\lVert A^{-1} \rVert_2^2 \le \lVert A^{-1} \rVert_\infty \lVert A^{-1} \rVert_1$, and Johnson (1989) the bound
# $\sigma_{\min} \ge \min_i (|a_{ii}| - (R_i + C_i) / 2)$ with the absolute sums $R_i, C_i$ of the off-diagonals of row
# and column $i$: Gershgorin's circles of the Hermitian part, after a unitary diagonal made the diagonal positive.
#
# **Determinant** (Ostrowski 1937 below, Hadamard above):
#
# $$ \sum_i \log |d_i| (1 - r_i) \;\le\; \log |\det A| \;\le\; \sum_i \log \lVert a_i \rVert_2 .  \tag{12.2} $$
#
# A certificate holds these numbers, with sums rounded up, so that it holds for the matrix as it is stored.

# %%
for ratio in (0.1, 0.5, 0.9, 0.99):
    for both in (False, True):
        matrix = np.exp(rng.standard_normal(16))[:, None] ** (not both) * mixing(16, ratio, both)
        found, inverse = lq.affine.certificate(matrix), np.linalg.inv(matrix)
        assert found.row_ratio <= ratio + 1e-12
        assert np.abs(inverse).sum(axis=1).max() <= found.inverse_inf  # (12.1)
        assert np.linalg.norm(inverse, 2) <= found.inverse_two
        assert np.linalg.cond(matrix, np.inf) <= found.condition_inf
        low, high = found.log_determinant
        assert low <= np.linalg.slogdet(matrix)[1] <= high  # (12.2)
sharp = np.eye(8) - 0.9 / 7 * (1 - np.eye(8))
assert math.isclose(np.abs(np.linalg.inv(sharp)).sum(axis=1).max(), certify(sharp).inverse_inf, rel_tol=1e-9)
assert lq.affine.certificate(sharp, strict=True).dominant
# %% [markdown]
# ## 12.2 Rows or columns
#
# The rows of $A$ mix columns of the weights: $\lVert W A^\top \rVert_{\max} \le (1 + \rho) \lVert W \rVert_{\max}$ for
# $D = I$. Dominant rows control the range of the weights. The inputs become $x B$ with $B = A^{-1}$, and
#
# $$ \lVert x B \rVert_\infty \le \lVert x \rVert_\infty \lVert B \rVert_1 , \qquad
#    \lVert B \rVert_1 \le \frac{1}{1 - \rho_{\text{columns}}} ,  \tag{12.3} $$
#
# which dominant rows do not bound: with $n_{j1} = -\rho$ for all $j > 1$ all rows have the sum $\rho$ and the first
# column of $B$ has the sum $1 + (n - 1) \rho$. Quantized weights alone need rows; quantized inputs need columns too,
# and then noise is amplified by at most $\lVert B \rVert_2 \le 1 / \sqrt{(1 - \rho)(1 - \rho_{\text{columns}})}$.

# %%
n, ratio = 64, 0.5
tall = np.eye(n)
tall[1:, 0] = -ratio
assert math.isclose(certify(tall).row_ratio, ratio)
assert np.abs(np.linalg.inv(tall)).sum(axis=0).max() == 1 + (n - 1) * ratio
assert certify(tall).inverse_one == math.inf  # not bounded, and it does not say so
weight, x = rng.standard_normal((32, n)), rng.standard_normal((32, n))
both = mixing(n, ratio, both=True)
assert np.abs(weight @ both.T).max() <= (1 + ratio) * np.abs(weight).max()
assert np.abs(x @ np.linalg.inv(both)).max() <= np.abs(x).max() / (1 - ratio)

# %% [markdown]
# ## 12.3 What dominance around the identity cannot do
#
# Let $B = (I + N)^{-1}$, column $k$. For $j \ne k$ row $j$ of $(I + N) B = I$ reads
# $b_{jk} = -\sum_l n_{jl} b_{lk}$. The largest entry of the column cannot stand at $j \ne k$, as it would be at most
# $r_j < 1$ times itself; so it is $b_{kk}$, and
#
# $$ |b_{jk}| \le r_j |b_{kk}| , \qquad \frac{1}{1 + r_k r_{\max}} \le b_{kk} \le \frac{1}{1 - r_k r_{\max}} ,
#    \tag{12.4} $$
#
# the second from row $k$: $b_{kk} = 1 - \sum_j n_{kj} b_{jk}$. **An outlier channel keeps its height**: of
# $x = M e_k$ the map leaves $(x B)_k = M b_{kk} \ge M / (1 + \rho^2)$, more than half, for every dominant $N$. All
# smoothing has to come from $D$, which moves it to the weights. The limit is attained:
# $N = \rho \begin{pmatrix} 0 & 1 \\ -1 & 0 \end{pmatrix}$.
#
# An orthogonal matrix has dominant rows only if $a_{ii}^2 > 1/2$; a Hadamard matrix of size $n$ has rows of ratio
# $n - 1$, a permutation zeros on its diagonal. Rotations and reorderings, which spread an outlier over all channels,
# are far outside.
#
# **The reference.** Take $A = D (I + N) T_0$ with any invertible $T_0$ that is known to be good. Then
#
# $$ A^{-1} = T_0^{-1} (I + N)^{-1} D^{-1} , \qquad \kappa(A) \le \kappa(D (I + N))\, \kappa(T_0) , \qquad
#    |\det A| = |\det T_0| \prod |d_i| \cdot |\det (I + N)| ,  \tag{12.5} $$
#
# so that all bounds hold relative to $T_0$, and for an orthogonal $T_0$ the 2-norm bounds hold as they are. With a
# Hadamard matrix for $T_0$ the outlier has the height $M / \sqrt n$ before $N$ does anything.


# %%
def kept(matrix: np.ndarray) -> float:
    """Largest part of a one-hot outlier's height that is left in any channel, at the best channel."""
    return float(np.abs(np.linalg.inv(matrix)).max(axis=1).min())


n, rotation = 64, hadamard_matrix(64) / 8.0
limits = np.linspace(0.02, 0.98, 25)
best = []
for ratio in limits:
    turned = np.array([[1.0, ratio], [-ratio, 1.0]])
    assert math.isclose(kept(turned), max(1, ratio) / (1 + ratio**2))
    best.append(min(kept(mixing(8, ratio)) for _ in range(50)))
    assert best[-1] >= 1 / (1 + ratio**2)
    inverse = np.linalg.inv(mixing(8, ratio))
    own = np.diag(inverse)
    off = np.abs(inverse) * (1 - np.eye(8))
    assert (off <= ratio * own * (1 + 1e-12)).all()  # (12.4), left
    assert (own <= 1 / (1 - ratio**2)).all()
around = AffineMap(np.ones(n), mixing(n, 0.9), rotation)
assert lq.affine.certificate(rotation).dominant_rows == 0
stated = around.certificate()
assert stated.dominant
assert math.isclose(stated.reference_condition, 1)
assert np.linalg.cond(around.matrix()) <= stated.condition_two  # (12.5), and the reference costs nothing
assert kept(rotation) < 0.13
assert kept(around.matrix()) < 0.2

figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.4), layout="constrained")
left.plot(limits, best, "o", markersize=3, label="best of 50 random N")
left.plot(limits, 1 / (1 + limits**2), label="limit 1 / (1 + ρ²)")
left.axhline(kept(rotation), color="black", linestyle=":", label="Hadamard reference, n = 64")
left.set(xlabel="dominance ratio ρ", ylabel="height left of an outlier", ylim=(0, 1.05))
left.legend()
spread = rng.standard_normal((256, n))
spread[:, 3] *= 100
for name, mapped in (("as it is", spread), ("rotated", spread @ rotation.T)):
    peaks = np.sort(np.abs(mapped).max(axis=1) / np.sqrt(np.mean(mapped**2, axis=1)))
    right.plot(peaks, np.linspace(0, 1, len(peaks)), label=name)
right.set(xlabel="peak over root mean square of a token", ylabel="share of tokens")
right.legend()
plt.show()

# %% [markdown]
# ## 12.4 The nearest dominant matrix
#
# With the diagonal kept, each row of off-diagonals goes to the nearest vector whose absolute values sum to at most
# $\rho |d_i|$: magnitudes $u$ less a threshold $\mu$, at least 0. For every $k$ the $k$ largest give
# $\sum (u - \mu)_+ \ge S_k - k \mu$, with equality at the number that stays above $\mu$, so that
#
# $$ \mu = \max_k \frac{S_k - \rho |d|}{k} \quad\text{(ball)} , \qquad
#    \mu = \max_k \frac{S_k - \rho |d|}{k + \rho^2}, \; |d| \to |d| + \rho \mu \quad\text{(cone)} , \tag{12.6} $$
#
# the second where the diagonal may move as well: its Lagrange multiplier is the same $\mu$. One sort does it. Rows and
# columns together have multipliers $\lambda_i$ and $\mu_j$, $v_{ij} = (|a_{ij}| - \lambda_i - \mu_j)_+$; Dykstra's
# alternation between both finds them slowly, Newton's method on the dual in a dozen steps.
#
# Training without projections uses a map onto the open ball: $N_i = \rho V_i / (1 + \lVert V_i \rVert_1)$, with the
# inverse $V_i = N_i / (\rho - \lVert N_i \rVert_1)$.

# %%
matrix = rng.standard_normal((32, 32))
for sides in ("rows", "columns", "both"):
    near = lq.affine.project(matrix, 0.9, sides=sides)
    stated = certify(near)
    sums = {"rows": [stated.row_ratio], "columns": [stated.column_ratio]}
    assert max(sums.get(sides, [stated.row_ratio, stated.column_ratio])) <= 0.9 + 1e-12
    distance = np.linalg.norm(near - matrix)
    # no dominant matrix on the way to a random dominant one is nearer
    for _ in range(20):
        other = lq.affine.project(rng.standard_normal((32, 32)), 0.9, sides=sides)
        other *= np.where(np.diag(other) * np.diag(matrix) < 0, -1, 1)[:, None]
        steps = [np.linalg.norm(near + t * (other - near) - matrix) for t in (0.001, 0.1, 1.0)]
        assert min(steps) >= distance
row = lq.affine.project(np.array([[1.0, 1.0], [0.0, 2.0]]), 0.5)[0]
assert np.allclose(row, [1.2, 0.6])  # μ = (1 − 0.5) / (1 + 0.25) = 0.4
# %% [markdown]
# ## 12.5 Inverses
#
# **Elimination needs no pivots.** Subtracting $l_{ik}$ times row $k$, $|l_{ik}| = |a_{ik} / a_{kk}|$, moves from row
# $i$ the entry $|a_{ik}|$ and adds at most $\rho |a_{ik}|$ elsewhere. So $S_i = |a_{ii}| + R_i$ falls by at least $(1 -
# \rho) |a_{ik}|$, the gap $|a_{ii}| - R_i$ does not fall, and the ratio $R_i / |a_{ii}|$ does not grow: every Schur
# complement is dominant with $\rho$. Its entries are at most $S_i \le (1 + \rho) |a_{ii}|$: they grow at most by 2.
# Summing over $k < i$, $\sum_k |a^{(k)}_{ik}| \le (S_i - S^{(i)}_i) / (1 - \rho)$, and since $|l_{ik}| \sum_j |u_{kj}|
# \le (1 + \rho) |a^{(k)}_{ik}|$,
#
# $$ \bigl\lVert \, |L| \, |U| \, \bigr\rVert_\infty \le \frac{1 + \rho}{1 - \rho} \, \lVert A \rVert_\infty ,
#    \tag{12.7} $$
#
# whatever $n$ is. A computed solve is the exact one of $A + \Delta$, $|\Delta| \le \gamma_{3n} |L| |U|$ with
# $\gamma_{3n} = 3 n u / (1 - 3 n u)$ (Higham, theorem 9.4), so the relative error for $I + N$ is at most
#
# $$ \gamma_{3n} \Bigl( \frac{1 + \rho}{1 - \rho} \Bigr)^2 .  \tag{12.8} $$
#
# In float32, with $n = 256$ and $\rho = 0.5$, that is $4 \cdot 10^{-4}$ for errors that all conspire and thirty times
# less for errors that do not: far below a step of 4 bits. Float64 is needed where conditioning has no bound.
#
# **Series.** $(I + N)^{-1} = \sum (-N)^k$ is left with an error of $\rho^K / (1 - \rho)$ after $K$ terms. A step of
# Newton and Schulz, $X \leftarrow X (2 I - (I + N) X)$, squares the residual: $\rho^{2^k} / (1 - \rho)$ after $k$ steps
# from $I$. That is 5 steps to $10^{-7}$ for $\rho = 0.5$ and 8 for 0.9, two products each, where elimination costs
# about one.

# %%
n = 128
for ratio in (0.5, 0.9):
    core = mixing(n, ratio)
    factors = factor(core)
    assert factors.pivot_free
    assert factors.growth <= 2
    lower, upper = np.tril(factors.packed.T), np.triu(factors.packed.T, 1) + np.eye(n)
    largest = (np.abs(lower) @ np.abs(upper)).sum(axis=1).max()
    assert largest <= (1 + ratio) / (1 - ratio) * np.abs(core).sum(axis=1).max()  # (12.7)
    x = rng.choice([-1.0, 1.0], (16, n)).astype(np.float32)
    narrow = core.astype(np.float32)
    error = np.abs(factor(narrow).solve_rows(x) @ narrow.astype(np.float64) - x).sum(axis=1).max() / n
    assert error < solve_error(n, ratio) / math.sqrt(n)  # (12.8)
    assert error < 1e-6
    steps = newton_schulz_steps(ratio, 1e-7)
    assert steps == {0.5: 5, 0.9: 8}[ratio]
    left_over = np.abs(newton_schulz(core - np.eye(n), steps) - np.linalg.inv(core)).sum(axis=1).max()
    assert left_over < 1e-7

# %% [markdown]
# ## 12.6 A gradual mask is no constraint
#
# AffineQuant multiplies $A$ by a mask: 1 on the diagonal, $\alpha$ in a band that grows to the whole matrix in the last
# epoch. Shrinking off-diagonals keeps a dominant matrix dominant; it makes none. In the last epoch the ratio is
# $\alpha$ times that of the trained matrix, which nothing bounds. Adam moves an entry by up to the learning rate
# $\eta$ a step, whatever $\alpha$ multiplies the gradient with, so that rows can reach $\alpha \eta K (n - 1)$ in $K$
# steps. What would suffice, for a diagonal that stays above 1, is
#
# $$ \alpha < \frac{1}{\eta K (n - 1)} ,  \tag{12.9} $$
#
# $1.9 \cdot 10^{-5}$ at the published settings of 4096 columns, where $10^{-2}$ is used. Entries that are moreover kept
# away from 0, at $10^{-2}$ or more, sum to $0.01\, \alpha\, (n - 1)$: 7.67 with $\alpha = 1$ for 768 columns.
#
# A budget for the sums instead, $\rho_t$ growing from 0 to $\rho$ and a projection after each step, goes the same way,
# from a diagonal map to a full one, and certifies every map on it.

# %%
assert math.isclose(stable_factor(4096, 2560, 5e-3), 1.9e-5, rel_tol=0.01)  # (12.9)
mask = gradual_mask(768, 19, 20, 1.0)
assert math.isclose(certify(np.where(np.eye(768) > 0, 1.0, 0.01) * mask).row_ratio, 7.67, rel_tol=1e-9)
trained = mixing(32, 5.0)
assert math.isclose(certify(trained * gradual_mask(32, 3, 4, 0.5)).row_ratio, 2.5)
walk = np.eye(32)
for step in range(1, 41):
    walk = walk + 0.05 * np.sign(rng.standard_normal((32, 32)))  # steps as large as Adam's
    walk = lq.affine.project(walk, growing_ratio(step, 40, 0.9), floor=0.1)
    assert certify(walk).row_ratio <= growing_ratio(step, 40, 0.9) + 1e-12
