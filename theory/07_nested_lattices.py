# %% [markdown]
# # 7. Nested lattices
#
# Where a block of weights meets an inner product as soon as it is decoded, codes should have one length and decode
# alone. A lattice gives that without tables: keep the points of $\Lambda$ modulo a sublattice. This note is about such
# codes (7.1), what they lose against an entropy coder (7.2), the scales that win most of it back (7.3), cheaper
# decoders (7.4), and codes in layers (7.5).
#
# Logarithms are binary; $D$ is the squared error per dimension, $R$ the rate, and the gap of a code is
# $R - \frac12 \log (1/D)$ for independent $N(0, 1)$.

# %%
import dataclasses
import itertools
import math

import matplotlib.pyplot as plt
import numpy as np
from scipy.stats import chi2

from lattq.bounds import space_filling_gap
from lattq.lattices import E8, D, HierarchicalCode, Lattice, NestedCode, VoronoiCode, best_scales
from lattq.lattices.nested import NESTQUANT_SCALES, NestedFigures, trial
from lattq.lattices.scales import _descent, _first, _table

rng = np.random.default_rng(7)
granular = space_filling_gap(929 / 12960)  # of E8

# %% [markdown]
# ## 7.1 Voronoi codes
#
# $\Lambda / q \Lambda$ has $q^n$ cosets. With a basis $G$ (rows) a point $c G$ is in the coset of the digits $c \bmod
# q$. Let $f$ map vectors to $\Lambda$ so that
#
# $$ f(x + \lambda) = f(x) + \lambda \quad \text{for all } \lambda \in \Lambda . \tag{7.1} $$
#
# Then the leader
#
# $$ r(c) = c G - q f(c G / q) \tag{7.2} $$
#
# depends on the coset alone: $c + q u$ moves both terms by $q\, u G$. As $r(c)$ lies in the coset of $c$, it has the
# digits $c$; so decoding and encoding again is the identity, whatever $f$. A point of $\Lambda$ is its own leader iff
# it lies in $q$ times the cell $\{x : f(x) = 0\}$; all others overload. The rate is $\log q$ exactly.
#
# **Ties.** For $f$ the nearest point, half of $q \Lambda$ meets cell walls when $q$ is even. By (7.1) any rule that
# depends on the coset alone will do, but two programs must have the same. Integer coordinates have integer squared
# distances. Moved by $v$, two of them with points $\lambda$ and $\mu$ of $q \Lambda$ differ by $2 v \cdot (\lambda -
# \mu)$ more, at most $4 q |v| \rho$ for points as near as the covering radius $\rho$ allows. With $|v| = 1 / (8 q
# \rho)$ this is at most $\frac12$, so only ties are decided, and each is: the entries of $v$ are powers of a
# transcendental number, to which no integer vector is orthogonal.

# %%
code = VoronoiCode(E8, 4)
digits = np.array(list(itertools.product(range(4), repeat=8)), dtype=np.int32)
leaders = code.decode(digits)
assert np.array_equal(code.encode(leaders), digits)
assert not code.overload(leaders).any()
norms, counts = np.unique(np.sum(leaders**2, axis=1), return_counts=True)
assert counts[:4].tolist() == [1, 240, 2160, 6720]  # the first shells of E8, complete
assert np.linalg.norm(leaders, axis=1).max() <= 4 * E8.covering_radius
ties = (np.sum((leaders[:, None] + 4 * E8.generator) ** 2, axis=-1) == np.sum(leaders**2, axis=1)[:, None]).any(axis=1)
assert ties.mean() > 0.1

# %% [markdown]
# ## 7.2 What a fixed rate costs
#
# Let the scale be $b$: the code of $x$ is that of $x / b$. Inside the cell $D = b^2 G V^{2/n}$. If $q b$ is so large
# that nothing overloads, then
#
# $$ \text{gap} = \underbrace{\tfrac12 \log 2 \pi e G}_{\text{granular}} +
#    \underbrace{\tfrac12 \log \frac{(q b)^2 V^{2/n}}{2 \pi e}}_{\text{shaping}} : \tag{7.3} $$
#
# the code spends the logarithm of the volume $(q b)^n V$ where a Gaussian has the entropy $\frac n2 \log 2 \pi e$. That
# volume would do in endless dimensions. In eight many vectors are longer, and $q b$ must be larger: with $V_n$ the
# volume of the unit ball the cell is nearly a ball of radius $q b\, (V / V_n)^{1/n}$, and
#
# $$ P(\text{overload}) \approx P\bigl(\chi^2_n > (q b)^2 (V / V_n)^{2/n}\bigr) . \tag{7.4} $$
#
# An overload wraps around the cell: its error is as large as the vector. A cheap cure pulls the vector towards 0 until
# it fits, so that its error is only what sticks out.

# %%
x = rng.standard_normal((40_000, 8))
radius = (math.gamma(5) / math.pi**4) ** (1 / 8)
code, overloads, wrapped, clipped = VoronoiCode(E8, 14), {}, [], []
grid = np.array([3.5, 4, 4.5, 5, 5.5, 6, 6.5, 7, 7.5, 8])
for reach in grid:
    _, errors, beyond = trial(code, x, reach / 14)
    overloads[reach] = beyond.mean(), chi2.sf((reach * radius) ** 2, 8)
    wrapped.append(errors.mean() / 8)
    clipped.append(NestedCode(code, (reach / 14,)).measure(x).distortion)
for reach in (4, 4.5, 5):
    found, expected = overloads[reach]
    assert 0.7 < expected / found < 1  # of all bodies of its volume the ball holds most
loss = {name: code.rate - 0.5 * np.log2(1 / np.array(d)) for name, d in (("wrapped", wrapped), ("pulled", clipped))}
assert abs(loss["wrapped"].min() - 0.96) < 0.01
assert abs(loss["pulled"].min() - 0.51) < 0.01
shaping = 0.5 * math.log2(8**2 / (2 * math.pi * math.e))
assert abs(loss["pulled"][-1] - granular - shaping) < 0.01  # (7.3): at 8 nothing overloads

# %% [markdown]
# One scale costs 0.96 bit with wrapped vectors and 0.51 with pulled ones.
#
# ## 7.3 Scales
#
# NestQuant gives each vector one of $k$ scales $b_1 < \dots < b_k$. Most vectors fit a cell that is smaller than (7.3)
# allows, and the index tells the norm of the vector, which is what shaping is about. Its cost is $\log k / n$ bits or,
# coded, its entropy over $n$. With shares $p_i$ of vectors at $b_i$ that all fit,
#
# $$ D = G V^{2/n} \textstyle\sum_i p_i b_i^2, \qquad R = \log q + \tfrac1n H(p) . \tag{7.5} $$
#
# For the rule "first that fits" the vectors are in the order of their first fit among candidates, scales are cuts of
# that order, and the cost of a cut depends on the cut before it only: dynamic programming finds the best ones. A vector
# that may overload somewhat can be better off at a smaller scale than its first fit; the rule "best" tries all.

# %%
figures: dict[tuple[str, str], NestedFigures] = {}
published = tuple(scale / 14 for scale in NESTQUANT_SCALES["weights"])
for rule in ("best", "first"):
    figures["published", rule] = NestedCode(code, published, rule).measure(x)
    for coded in (True, False):
        own = best_scales(E8, 14, 4, rule=rule, coded=coded, samples=2**14)
        figures["coded" if coded else "raw", rule] = NestedCode(code, own, rule).measure(x)
gaps = {name: (found.gap(), found.gap(coded=False)) for name, found in figures.items()}
table = {
    ("published", "best"): (0.00691, 0.335, 0.468),
    ("published", "first"): (0.00700, 0.326, 0.478),
    ("coded", "best"): (0.00578, 0.284, 0.340),
    ("raw", "best"): (0.00556, 0.289, 0.311),
    ("coded", "first"): (0.00602, 0.281, 0.369),
    ("raw", "first"): (0.00568, 0.302, 0.327),
}
for name, (distortion, *expected) in table.items():
    assert abs(figures[name].distortion / distortion - 1) < 0.01
    assert np.abs(np.subtract(gaps[name], expected)).max() < 0.003  # twice the standard error of 40 thousand vectors
assert abs(granular - 0.146) < 0.0005
assert abs(gaps["coded", "best"][0] - granular - 0.14) < 0.005
assert abs(0.5 * math.log2(2 * math.pi * math.e / 12) - 0.2546) < 0.0001
words = NestedCode(VoronoiCode(E8, 13), best_scales(E8, 13, 4, coded=False, samples=2**14)).measure(x)
assert 13**8 < 2**30
assert abs(words.distortion / 0.00644 - 1) < 0.01
several = [NestedCode(code, best_scales(E8, 14, k, samples=2**13)).measure(x).gap() for k in (1, 2, 3)]
assert several[0] > several[1] > several[2] > gaps["coded", "best"][0] > granular + 0.1

# %% [markdown]
# | E8, $q = 14$, $k = 4$ | $D$ | gap, coded index | gap, raw index |
# |---|---|---|---|
# | published scales, best | .00691 | .335 | .468 |
# | published scales, first | .00700 | .326 | .478 |
# | own for a coded index, best | .00578 | .284 | .340 |
# | own for a raw index, best | .00556 | .289 | .311 |
# | own for a coded index, first | .00602 | .281 | .369 |
# | own for a raw index, first | .00568 | .302 | .327 |
#
# What is left above the granular 0.146 is 0.14 bit for shaping. An entropy coder has none of it (note 4), and an
# entropy-coded *scalar* loses 0.2546: a fixed rate has to be worth it. With $q = 13$ eight weights and four scales are
# a uint32, $13^8 < 2^{30}$, at $D = 0.00644$.
#
# ## 7.4 Simplified decoders
#
# By (7.1) the decoder's $f$ need not be the nearest point. A wrong parity can be repaired at a fixed coordinate, which
# spares the search for the worst one. The fundamental cell keeps its volume and gets worse in shape.

# %%
simple = VoronoiCode(E8, 14, "simplified")
own = best_scales(E8, 14, 4, shaping="simplified", samples=2**14)
worse = NestedCode(simple, own).measure(x).gap() - gaps["coded", "best"][0]
assert abs(worse - 0.15) < 0.01

# %% [markdown]
# That costs 0.15 bit, as much as the whole shaping.
#
# ## 7.5 Layers
#
# Look-up tables of inner products want small codebooks. Write a point $g_0$ as
#
# $$ g_m = r_m + q\, g_{m+1}, \qquad g_0 = \sum_{m < M} q^m r_m + q^M g_M , \tag{7.6} $$
#
# with $r_m$ the leader of the coset of $g_m$: $M$ layers of rate $\log q$ each. Then $\langle x, y \rangle = \sum_{i,
# j} q^{i + j} \langle r_i(x), r_j(y) \rangle$, and one table of $q^{2n}$ integers serves all $M^2$ terms. Without the
# lowest layers it is a coarser product.
#
# The points are those of $\sum_m q^m (\Lambda \cap q \mathcal V)$, $\mathcal V$ the cell, which is not $\Lambda \cap
# q^M \mathcal V$. A point overloads unless $g_{M-1}$ lies in $q \mathcal V$, and by (7.6) $g_{m+1}$ differs from $g_m /
# q$ by a vector of $\mathcal V$. So $g_{M-1}$ is $g_0 / q^{M-1}$ up to $1 + q^{-1} + \dots + q^{2-M}$ times such a
# vector, and relative to $q \mathcal V$ the boundary is blurred by up to
#
# $$ \frac{1 - q^{1 - M}}{q - 1} , \tag{7.7} $$
#
# for two layers $1 / q$: a quarter for $q = 4$, an eighth for $q = 8$. It is overload inside the cell, and a
# larger scale is its price.


# %%
def share_lost(lattice: Lattice, q: int, layers: int) -> float:
    """Points of q^M V that overload in layers."""
    plain, layered = VoronoiCode(lattice, q**layers), HierarchicalCode(lattice, q, layers)
    points = plain.decode(rng.integers(0, q**layers, (20_000, lattice.dimension), dtype=np.int32))
    return float(layered.overload(points).mean())


lost = {(lattice.name, q): share_lost(lattice, q, 2) for lattice in (E8, D(4)) for q in (2, 3, 4, 8, 13)}
for name in ("E8", "D(4)"):
    assert lost[name, 2] > max(lost[name, 3], lost[name, 4])
    assert lost[name, 4] > 1.5 * lost[name, 8] > 2.1 * lost[name, 13]


@dataclasses.dataclass(frozen=True)
class TwoLayers(VoronoiCode):
    """Digits of two layers as one, the finer layer low."""

    @property
    def layer(self) -> VoronoiCode:
        return VoronoiCode(self.lattice, math.isqrt(self.q))

    def digits(self, points: np.ndarray) -> np.ndarray:
        one = self.layer
        low = one.digits(points)
        return low + one.q * one.digits((points - one.leaders(low)) // one.q)

    def leaders(self, digits: np.ndarray) -> np.ndarray:
        one = self.layer
        return one.leaders(digits % one.q) + one.q * one.leaders(digits // one.q)


def gap_of_four(code: VoronoiCode) -> float:
    """With scales found as `best_scales` does, and a coded index."""
    found = _table(code, rng.standard_normal((2**14, code.dimension)))
    price = 2 * math.log(2) * found.loss(_first(found, 4, 0.0), "first", coded=False)[0]
    own = found.scales[_descent(found, _first(found, 4, price), "best", True)]
    return NestedCode(code, tuple(own.tolist())).measure(x.reshape(-1, code.dimension)).gap()


both, layered = TwoLayers(D(4), 16), HierarchicalCode(D(4), 4, 2)
points = 3 * rng.standard_normal((1000, 4))
assert np.array_equal(both.decode(both.encode(points)), layered.decode(layered.encode(points)))
four = {
    (lattice.name, q): (gap_of_four(VoronoiCode(lattice, q)), gap_of_four(TwoLayers(lattice, q)))
    for lattice in (E8, D(4))
    for q in (16, 64)
}
measured = {
    ("E8", 16): (0.290, 0.423),
    ("E8", 64): (0.288, 0.317),
    ("D(4)", 16): (0.418, 0.563),
    ("D(4)", 64): (0.409, 0.440),
}
for name, expected in measured.items():
    assert np.abs(np.subtract(four[name], expected)).max() < 0.01  # the search ends at one of many sets of scales
    cost = four[name][1] - four[name][0]
    assert 0.12 < cost < 0.16 if name[1] == 16 else 0.02 < cost < 0.04

# %% [markdown]
# With four scales for each code, designed on 16 thousand vectors, the gaps with a coded index are:
#
# | | $16^1$ | $4^2$ | $64^1$ | $8^2$ |
# |---|---|---|---|---|
# | E8 | .290 | .423 | .288 | .317 |
# | D4 | .418 | .563 | .409 | .440 |
#
# Layers of $q = 4$ cost 0.13 to 0.15 bit, those of $q = 8$ 0.03.

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
for name, values in loss.items():
    left.plot(grid, values, "o-", label=f"one scale, {name}")
left.axhline(gaps["coded", "best"][0], color="tab:green", label="four scales")
left.axhline(granular, color="tab:gray", linestyle="--", label="granular")
left.set(xlabel="q b", ylabel="gap, bits", title="7.2: overload and shaping, E8, q = 14", ylim=(0, 3))
for name in ("E8", "D(4)"):
    sizes = [2, 3, 4, 8, 13]
    right.plot(sizes, [lost[name, q] for q in sizes], "o-", label=name)
right.set(xlabel="q", ylabel="share of points", title="7.5: overload of two layers inside the cell", ylim=0)
for axis in (left, right):
    axis.legend()
plt.close(figure)
figure
