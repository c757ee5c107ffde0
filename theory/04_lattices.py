# %% [markdown]
# # 4. Lattices
#
# Rounding to a grid loses $\tfrac12\log\frac{2\pi e}{12} = 0.2546$ bit by (1.16), since a cube is not a ball. This note
# is about better cells: what their second moments are (4.1), how to find the nearest point of E8, BW16 and the Leech
# lattice without missing one and with ties that respect translations (4.2), and what an ideal coder pays for the points
# of a Gaussian vector, at any rate (4.3).
#
# Logarithms are binary unless written $\ln$. Lattices are in the coordinates of `lattq.lattices`.

# %%
import itertools
import math

import matplotlib.pyplot as plt
import numpy as np

from lattq import bounds, lattices
from lattq.lattices import BW16, E8, A, A_dual, D, D_dual, Leech24, Z, theta

rng = np.random.default_rng(4)

# %% [markdown]
# ## 4.1 Second moments
#
# The cell $\mathcal V$ of a lattice $\Lambda \subset \mathbf R^n$ holds what is nearer to 0 than to any other point.
# Its volume is $V = \sqrt{\det G G^\mathsf T}$ for the basis in the rows of $G$. If $x$ is uniform in it,
#
# $$ G_\Lambda = \frac1{n V^{2/n}} \mathbf E\, \lVert x \rVert^2 \tag{4.1} $$
#
# does not depend on scale. At high rate the error of quantizing to $\Lambda$ is uniform in $\mathcal V$, whatever the
# source, and the loss is $\tfrac12 \log 2\pi e G_\Lambda$ by (1.16). The **granular gain** $10 \log_{10} \frac1{12
# G_\Lambda}$ dB over the cube is at most 1.533 dB; a factor 4 in the error, 6.02 dB, is one bit.
#
# **By simulation.** A vector that is uniform in the parallelepiped of the basis has an error uniform in the cell: both
# are sets of representatives modulo $\Lambda$. So $N$ samples give the mean (4.1) with a standard error.
#
# **D.** Vectors with an even sum. The cell is the cube $|x_i| \le \frac12$ and a pyramid on each of its $2n$ facets up
# to $\pm e_i$; cube and pyramids have volume 1 each. In a pyramid the distance $u$ from the tip along the axis has the
# density $n 2^n u^{n-1}$ up to $\frac12$, and the other coordinates are uniform in $\pm u$, so
# $\mathbf E \lVert x \rVert^2 = \mathbf E (1-u)^2 + \frac{n-1}3 \mathbf E u^2 = \frac1{n+1} + \frac n{12}$ there. Hence
#
# $$ G_{D_n} = \Bigl(\frac1{12} + \frac1{2n(n+1)}\Bigr) 4^{-1/n} . \tag{4.2} $$
#
# **A.** Integers with sum zero; Conway and Sloane (chapter 21) find
#
# $$ G_{A_n} = \Bigl(\frac1{12} + \frac1{6(n+1)}\Bigr) (n+1)^{-1/n} . \tag{4.3} $$
#
# **Dual of D.** $\mathbf Z^n$ and $\mathbf Z^n + (\frac12)^n$. The cell is a cube cut to $\sum |x_i| \le \frac n4$.
# With $u_i = 2|x_i|$ uniform in $[0, 1]$ and $S = \sum u_i$, the map $u \to 1 - u$ exchanges it with the other part, so
#
# $$ 2 \cdot \tfrac13 = \mathbf E [u_1^2 \mid S \le \tfrac n2] + \mathbf E [(1 - u_1)^2 \mid S \le \tfrac n2] , \qquad
#    \mathbf E [u_1 \mid S \le \tfrac n2] = \tfrac12 - \tfrac1n \mathbf E |S - \tfrac n2| . \tag{4.4} $$
#
# Solved for the first term, with the mean deviation of a sum of uniform variables,
#
# $$ \mathbf E |S - \tfrac n2| = \frac2{(n+1)!} \sum_{k < n/2} (-1)^k \binom nk \Bigl(\frac n2 - k\Bigr)^{n+1} ,
#    \tag{4.5} $$
#
# $$ G_{D_n^*} = \Bigl(\frac1{12} - \frac1{4n} \mathbf E |S - \tfrac n2|\Bigr) 4^{1/n} . \tag{4.6} $$
#
# **Dual of A.** The cell is a permutohedron: for $(n+1) A_n^*$ the hull of the permutations of $0, \dots, n$, moved to
# the origin, of volume $V_n = (n+1)^{n - 1/2}$. Its facets are products of two smaller ones, one for each choice of
# $k$ coordinates that hold the smallest numbers, at the distance $h_k$ with $h_k^2 = \frac14 k (n+1-k)(n+1)$. Cut into
# cones over its facets, with $I_n = \int \lVert x \rVert^2$,
#
# $$ I_n = \sum_{k=1}^n \binom{n+1}k \frac{h_k}{n+2} \bigl( h_k^2 V_{k-1} V_{n-k} + I_{k-1} V_{n-k} + V_{k-1} I_{n-k}
#    \bigr) , \qquad G_{A_n^*} = \frac{I_n}{n V_n^{1+2/n}} . \tag{4.7} $$
#
# E8 has $\frac{929}{12960}$. The cell of BW16 has been described face by face
# (Pook-Kolb, Allen and Agrell 2023): $\frac{207049815983}{4287303820800} \sqrt2 = 0.0682976$. For the Leech lattice
# there are simulations: $0.065771 \pm 0.000074$ in the table of Conway and Sloane, $0.0657523 \pm 0.0000011$ here, from
# 30 million vectors.

# %%
pairs = [A(2), A(3), A(7), A_dual(3), A_dual(7), D(3), D(4), D(7), D_dual(3), D_dual(4), D_dual(6), E8, BW16, Leech24]
for lattice in pairs:
    found = lattices.measure_nsm(lattice, 40_000, seed=1)
    simulated = 1.1e-6 if lattice == Leech24 else 0.0
    assert abs(found.value - lattice.nsm) < 3 * math.hypot(found.standard_error, simulated)
assert math.isclose(A(3).nsm, D(3).nsm)  # the same lattice, face-centred cubic
assert math.isclose(A_dual(3).nsm, D_dual(3).nsm)  # body-centred cubic
assert math.isclose(D_dual(4).nsm, D(4).nsm)
assert math.isclose(A_dual(2).nsm, A(2).nsm)
gains = {lattice.name: 10 * math.log10(1 / 12 / lattice.nsm) for lattice in (A(2), D(4), E8, BW16, Leech24)}
assert [round(gain, 2) for gain in gains.values()] == [0.17, 0.37, 0.65, 0.86, 1.03]


def ball(n: int) -> float:
    """Normalised second moment of a ball: no lattice in n dimensions is below."""
    return math.gamma(n / 2 + 1) ** (2 / n) / ((n + 2) * math.pi)


for lattice in pairs:
    assert ball(lattice.dimension) < lattice.nsm < 1 / 12

# %% [markdown]
# ## 4.2 Nearest points
#
# Scaled to integers, the three lattices are
#
# - $2\,\mathrm{E8}$: all coordinates even or all odd, sum divisible by 4;
# - $\sqrt2\,\mathrm{BW16}$: a word of the Reed–Muller code $\mathrm{RM}(1,4)$ modulo 2, sum divisible by 4;
# - $\sqrt8\,\Lambda_{24}$: $p + 2c + 4k$ with $p \in \{0, 1\}$, $c$ in the Golay code, $\sum k_i \equiv p$ modulo 2.
#
# All are residues plus $M k$ with a condition on the parity of $\sum k_i$. For fixed residues: round every coordinate,
# and if the parity is wrong take the other neighbour where that costs least. For all residues: a table holds for a part
# of the coordinates and each pattern of residues there the least cost with even and with odd sum, and two parts join by
#
# $$ (a \vee b)_q = \min_{q_1 + q_2 = q} (a_{q_1} + b_{q_2}) . \tag{4.8} $$
#
# The word of $\mathrm{RM}(1, 4)$ on a quarter of the places is a pattern of two bits up to complement: 32 words are 128
# joins. Turyn's Golay words $(a + x, b + x, a + b + x)$, with $a, b$ in one Hamming code and $x$ in another, are paths
# through a trellis with 64 states between the thirds: 8 choices of $x$, then $8 \cdot 8$ of $a$ and $b$ up to
# complements, which the thirds choose for themselves. This is a search of all 8192 cosets with common terms taken
# together; a decoder that is right within the packing radius 1 only would not do, as errors have
# $\mathbf E \lVert e \rVert^2 = 24 \cdot 0.0658 = 1.58$.
#
# **Ties.** Codes that label a point modulo a coarser lattice need $Q(x + \lambda) = Q(x) + \lambda$ for all
# $\lambda \in \Lambda$, also for $x$ on the boundary of a cell, where lattice points divided by integers often are. No
# order among candidates by their labels has that property. But let $\ell(f) \in \Lambda$ for integer vectors $f$, with
# $\ell(f + \lambda) = \ell(f) + \lambda$. Then
#
# $$ Q(x) = \ell(\lfloor x \rfloor) + Q_0\bigl(x - \ell(\lfloor x \rfloor)\bigr) \tag{4.9} $$
#
# has it for **any** nearest-point map $Q_0$ and any rule for ties: $x$ and $x + \lambda$ leave the same remainder. For
# a code, $\ell$ takes from $f$ the bits at information positions, and moves the other coordinates down to the word that
# these determine and the first one to the right sum.

# %%
for lattice in (D(4), E8, BW16, Leech24):
    scale = lattice.integer_scale
    basis = np.rint(scale * lattice.generator)
    x = rng.integers(-16, 17, (2000, lattice.dimension)) / 4
    points = rng.integers(-5, 6, x.shape) @ basis
    found = lattice.nearest_integer(x)
    assert np.array_equal(lattice.nearest_integer(x + points), found + points)
    halves = basis[rng.integers(0, lattice.dimension, 2000)] / 2  # midpoints of lattice points: ties every one
    assert np.array_equal(lattice.nearest_integer(halves + points), lattice.nearest_integer(halves) + points)

# Rounding halves to even, as `rint` does, is not covariant: 0.5 goes to 0 and 1.5 to 2.
assert np.rint(0.5) + 1 != np.rint(1.5)
assert Z(1).nearest(np.array([0.5]))[0] + 1 == Z(1).nearest(np.array([1.5]))[0]

errors = rng.random((50_000, 24)) @ Leech24.generator
errors -= Leech24.nearest(errors)
assert abs(np.mean(np.sum(errors**2, axis=1)) - 1.58) < 0.01
assert np.mean(np.sum(errors**2, axis=1) > Leech24.packing_radius**2) > 0.99

# %% [markdown]
# ## 4.3 A Gaussian on a lattice
#
# The points nearest to a Gaussian vector are nearly distributed like
#
# $$ P(\lambda) = \frac1{Z(s)} \exp\Bigl(-\frac{\lVert \lambda \rVert^2}{2 s^2}\Bigr) , \qquad
#    Z(s) = \sum_{\lambda \in \Lambda} \exp\Bigl(-\frac{\lVert \lambda \rVert^2}{2 s^2}\Bigr) , \tag{4.10} $$
#
# one parameter for the whole lattice. Its mean norm is $s^3 \frac{d \ln Z}{ds}$, and of all $s$ the one with the mean
# norm of the data gives the shortest code, of the entropy of (4.10). $Z$ is the theta series at
# $q = e^{-1/2s^2}$. In integer coordinates let $S_r$ be the sum of $q^{h^2}$ over $h = r + Mk$, and $T_r$ the same with
# signs $(-1)^k$: half of product plus alternating product counts even sums of $k$ alone. So
#
# $$ Z_{\mathrm{BW16}} = \tfrac12 \sum_w A_w S_0^{16-w} S_1^w + \tfrac12 T_0^{16} , \qquad
#    Z_{\Lambda_{24}} = \tfrac12 \sum_{p=0}^1 \sum_w A_w \bigl( S_p^{24-w} S_{p+2}^w + (-1)^p\, T_p^{24-w} T_{p+2}^w
#    \bigr) , \tag{4.11} $$
#
# with the weights $A_w$ of the code: 1, 30, 1 and 1, 759, 2576, 759, 1. E8 is the first formula with the words
# $0^8$ and $1^8$. For large $s$ Poisson's transform makes the sums short:
#
# $$ S_r = \frac{s \sqrt{2\pi}}M \sum_m e^{-2 (\pi s m / M)^2} \cos\frac{2 \pi r m}M , \qquad
#    T_r = \frac{s \sqrt{2\pi}}M \sum_m e^{-2 (\pi s (m + 1/2) / M)^2} \cos\frac{2 \pi r (m + \frac12)}M . \tag{4.12} $$
#
# With subtractive dither and Wiener's factor the loss is at most $\tfrac12 \log 2 \pi e G_\Lambda$ at every rate (Zamir
# and Feder 1996). Without dither, coded by (4.10) and decoded as $g \lambda$ with the best $g$, it is the same to a
# thousandth of a bit, down to about one bit: the gap is flat. It vanishes with the rate, for the Leech
# lattice after a slight rise at half a bit.

# %%
for lattice in (Z(2), D(4), E8, BW16, Leech24):
    norms, counts = np.arange(100), np.array(lattice.series.shells(100), dtype=np.float64)
    weights = counts * np.exp(-norms / 2 / 0.8**2)  # s = 0.8
    assert math.isclose(theta.log_partition(lattice, 0.8), math.log(weights.sum()), rel_tol=1e-9, abs_tol=1e-12)
    assert math.isclose(theta.mean_norm(lattice, 0.8), weights @ norms / weights.sum(), rel_tol=1e-9)
    fine = lattice.dimension * math.log(math.sqrt(2 * math.pi) * 50 / lattice.integer_scale) - math.log(lattice.volume)
    assert math.isclose(theta.log_partition(lattice, 50.0), fine, rel_tol=1e-12)

# E8 from all vectors of a box, by brute force.
box = np.array(list(itertools.product((-2, 0, 2), repeat=8)) + list(itertools.product((-1, 1), repeat=8)))
small = box[box.sum(axis=1) % 4 == 0]
assert sum(np.sum(small**2, axis=1) == 8) == 240

steps, curves = np.array([0.3, 0.6, 1.0, 1.4, 1.8, 2.4, 2.8, 3.2, 3.6, 4.0]), {}
for lattice in (Z(8), E8, BW16, Leech24):
    curves[lattice] = [lattices.measure_gap(lattice, float(step), 20_000, seed=2) for step in steps]
    for step, found in zip(steps, curves[lattice], strict=True):
        limit = bounds.space_filling_gap(lattice.nsm)
        if step <= 1.8:
            assert abs(found.value - limit) < 4 * found.standard_error + 0.004
assert all(found[-1].value < 0.1 for found in curves.values())
assert max(found.value for found in curves[Leech24]) < 0.092

figure, (left, right) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
rates = [bounds.entropy_coded_scalar(step=float(step)).rate for step in steps]
for lattice, colour in zip(curves, ("tab:gray", "tab:blue", "tab:orange", "tab:green"), strict=True):
    values = [found.value for found in curves[lattice]]
    spread = [2 * found.standard_error for found in curves[lattice]]
    left.errorbar(rates, values, yerr=spread, fmt="o", color=colour, label=lattice.name)
    left.axhline(lattice.space_filling_gap, color=colour, linewidth=1)
left.set(xlabel="bits of a scalar quantizer with cells of that volume", ylabel="gap to R(D), bits", ylim=0, xlim=0)
left.set_title("4.3: Gaussian model, no dither; lines: ½ log 2πeG")
left.legend()
dimensions = np.arange(1, 33)
right.plot(dimensions, [bounds.space_filling_gap(ball(int(n))) for n in dimensions], "k--", label="ball")
families = {"A": A, "A dual": A_dual, "D": D, "D dual": D_dual}
for name, family in families.items():
    sizes = range(2, 25)
    right.plot(sizes, [family(n).space_filling_gap for n in sizes], label=name)
for lattice in (E8, BW16, Leech24):
    right.plot(lattice.dimension, lattice.space_filling_gap, "o", color="black")
    right.annotate(
        lattice.name, (lattice.dimension, lattice.space_filling_gap), xytext=(4, 4), textcoords="offset points"
    )
right.set(xlabel="dimension", ylabel="space-filling gap, bits", title="4.1: cells", ylim=0)
right.legend()
plt.close(figure)
figure
