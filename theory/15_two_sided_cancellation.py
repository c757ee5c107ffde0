# %% [markdown]
# # 15. Cancellation on two sides
#
# Note 2 feeds errors of columns into columns that are still to come, since inputs are correlated. Outputs are heard
# by the rest of a model unequally, and together: then errors of rows can cancel too. This note derives the loop for
# both sides, says in which sets entries may be quantized at once, gives the bound, and explains two dampings that a
# model needs and a single layer does not.
#
# In the code: `lattq.Metric` (15.1, 15.6), `lattq.feedback.fronts` (15.2, 15.3), `lattq.lattices.fronts` (15.3),
# `lattq.bounds.layer_rate` (15.4), `lattq.transforms.rows` (15.5), `lattq.recipes.two_sided` (15.7).

# %%
import functools

import matplotlib.pyplot as plt
import numpy as np

import lattq as lq
from lattq.coding.fronts import Fronts
from lattq.feedback import Cholesky, successive_cancellation
from lattq.lattices import Leech24
from lattq.quantizers import Lattice, Trellis, Uniform

rng = np.random.default_rng(15)


def moment(n: int, decay: float) -> np.ndarray:
    """A second moment of n correlated numbers whose spectrum falls by so many factors of ten."""
    basis, _ = np.linalg.qr(rng.standard_normal((n, n)))
    return (basis * np.logspace(0, -decay, n)) @ basis.T


# %% [markdown]
# ## 15.1 The metric
#
# A layer turns inputs $x$ into $W x$; with $\hat W = W - E$ the outputs are off by $E x$. If $g$ is the gradient, by
# those outputs, of the log-likelihood of labels drawn from the model itself, then to second order the model's
# predictions move by
#
# $$\mathrm{KL} \approx \tfrac12\, \mathbb E\,(g^{\mathsf T} E x)^2 \approx \tfrac12 \operatorname{tr}(G E \Sigma
# E^{\mathsf T}), \qquad \Sigma = \mathbb E\,x x^{\mathsf T},\; G = \mathbb E\,g g^{\mathsf T}, \tag{15.1}$$
#
# in nats per token. The second step takes the fourth moment of $(x, g)$ for the Kronecker product $G \otimes \Sigma$.
# $G = I$ is the objective of notes 1 to 5; $G = \gamma I$ is one sensitivity for each layer. With $G$ in its own
# units one step for all layers is equal slope everywhere: there is nothing left to allocate.
#
# ## 15.2 The identity
#
# Let $\Sigma = U \operatorname{diag}(d)\, U^{\mathsf T}$ and $G = V \operatorname{diag}(c)\, V^{\mathsf T}$, both unit
# lower triangular, and $N = V^{\mathsf T} E U$. Then
#
# $$\operatorname{tr}(G E \Sigma E^{\mathsf T}) = \sum_{ij} c_i d_j N_{ij}^2, \qquad N_{ij} = e_{ij} +
# \sum_{(k,l) \ge (i,j),\, \ne (i,j)} V_{ki}\, e_{kl}\, U_{lj}. \tag{15.2}$$
#
# So if entry $(i, j)$ is rounded at the target $w_{ij}$ plus that sum, $N$ holds exactly the plain rounding errors.
# With $P = E U$ the sum splits into what columns say to columns and what rows say to rows:
#
# $$\text{target}_{ij} = w_{ij} + (P_{ij} - e_{ij}) + \sum_{k > i} V_{ki} P_{kj}. \tag{15.3}$$
#
# The cost is rows · columns · (rows + columns) products instead of rows · columns². With a penalty $J$ on the input
# side (2.6) the same holds for $\operatorname{tr}(G\,[E \Sigma E^{\mathsf T} + \hat W J \hat W^{\mathsf T}])$: its
# minimum $W \Sigma (\Sigma + J)^{-1}$ does not depend on $G$, so only the target of the columns moves.

# %%
rows, columns = 24, 32
weight, metric = rng.standard_normal((rows, columns)), lq.Metric(moment(columns, 2), moment(rows, 2))
factor, outputs = Cholesky().factor(weight, metric.inputs), metric.output_factor
found = successive_cancellation(weight, factor, Uniform(0.1), outputs=outputs)
price = np.outer(outputs.pivots.reshape(-1), factor.pivots)
error = weight - found.reconstruction
noise = outputs.unit[0].T @ error @ factor.unit
assert np.allclose(noise, found.noise, atol=1e-12)
assert np.abs(noise).max() <= 0.05 + 1e-12
assert np.isclose(metric.squared_error(error) * weight.size, np.sum(price * noise**2), rtol=1e-10)

# %% [markdown]
# ## 15.3 Fronts
#
# Entry $(i, j)$ hears $(k, l)$ only if $k \ge i$ and $l \ge j$. Two entries of one anti-diagonal never do, so an
# anti-diagonal is quantized at once, the last one first; where $G$ is diagonal, rows do not hear each other and the
# fronts are the columns again. Once both sides are equalized (15.5) all prices $c_i d_j$ are one, and a front is an
# isotropic source: a trellis or a lattice may run along it as it runs down a column. A decoder needs the order of the
# entries, so sequences take the natural one; scalar codes are decoded without it and take any.
#
# Where $G$ has blocks down its diagonal, fronts of all blocks go together. Blocks of 512 outputs bound the memory of
# $G$, and lengthen the fronts: a sequence that starts anew has few choices in its first steps, which costs a 256-state
# trellis some 2.6 bits. Sums from far away are matrix products: a chunk of 64 fronts takes what was done before it in
# strips of 32 rows or columns, and only entries of the chunk itself reach each other one by one.

# %%
fronts = Fronts(rows, columns, height=rows)
assert sum(fronts.size(k) for k in range(fronts.number)) == weight.size
starts = {height: Fronts(512, 512, height).number / 512**2 * 2.6 for height in (1, 64, 512)}
assert starts[1] < starts[64] < starts[512] < 0.011  # bits a weight
print({height: round(bits, 4) for height, bits in starts.items()})

# %% [markdown]
# A lattice point takes $n$ entries of a front. They lie in as many rows and columns, so each has a variance of its own,
# $s_i^2$, while the probabilities of cosets (4.10) want one scale $s$ for all of a point. At high rate its bits are
# $\sum x_i^2 / 2 s^2 \ln 2 + n \log_2 s$ up to a constant: $s^2$ is the mean of the $s_i^2$, and a point costs
#
# $$\tfrac12 \log_2 \frac{\text{arithmetic mean of } s_i^2}{\text{geometric mean of } s_i^2} \text{ bits an entry}
# \tag{15.3a}$$
#
# more than with a scale for each. Neighbours on a front may differ by octaves, which would cost more than a rounder
# cell brings. So entries go into points in the order of their scales. A decoder has to know that order before any
# code: it is that of the classes of rows and columns that the weights have before the loop. The codes have classes of
# their own, since feedback adds to them; these are stored as differences from the first, and where the rate is not low
# they are constant and cost two bytes. Of a front of $m$ entries the $m \bmod n$ with the smallest scales are left
# over, and become cubes: for one group of rows the share of all is about $(n - 1) / 2$ times fronts over entries, and
# each of them loses what the cell gains over a cube. What remains of (15.3a) inside points is .001 bit for E8 and .002
# for the Leech lattice at $192^2$.
# On the embedded model the divergence at 3 bits is .0131 with cubes, .0114 with E8 and .0108 with the Leech lattice.

# %%
low, high = 1.0, 16.0  # two variances in turn
mixed = 0.5 * np.log2((low + high) / 2) - 0.25 * np.log2(low * high)
assert mixed > 0.5  # more than the 0.17 bit between a cube and the cell of the Leech lattice
scales = np.sort(np.exp2(rng.standard_normal((100, 240)) * 1.0), axis=1).reshape(100, -1, 24)  # of 100 fronts
inside = 0.5 * np.log2(np.mean(scales**2, axis=2)) - np.mean(np.log2(scales), axis=2)
assert inside.mean() < 0.1 * mixed
square = Fronts(512, 512, height=512)
left = {n: sum(square.size(k) % n for k in range(square.number)) / 512**2 for n in (8, 24)}
assert all(np.isclose(share, (n - 1) / 2 * square.number / 512**2, rtol=0.05) for n, share in left.items())
print({n: round(share, 3) for n, share in left.items()}, f"of 512² are left over; {mixed:.2f} bit for mixed scales")

# %% [markdown]
# ## 15.4 The bound
#
# Weights of variance $\rho_i \kappa_j$ seen through both square roots are as hard as independent Gaussians whose
# variances are the products of two spectra: the eigenvalues $\mu_i$ of $P^{1/2} G P^{1/2}$, $P = \operatorname{diag}
# (\rho)$, and $\lambda_j$ of $K^{1/2} \Sigma K^{1/2}$. The rate–distortion function is reverse waterfilling over
# $\mu_i \lambda_j$: the function of note 1, with another spectrum for the rows. At high rate two sides are worth
#
# $$\tfrac12 \log_2 \frac{\text{arithmetic mean of } \mu}{\text{geometric mean of } \mu} \text{ bits a weight.}
# \tag{15.4}$$

# %%
spread = np.linalg.eigvalsh(metric.outputs[0])
gain = 0.5 * np.log2(spread.mean() / np.exp(np.log(spread).mean()))
level = 1e-6
alike = lq.Metric(metric.inputs, np.eye(rows) * spread.mean())
saved = lq.bounds.layer_rate(alike, level) - lq.bounds.layer_rate(metric, level)
assert np.isclose(saved, gain, atol=1e-9)
print(f"two sides are worth {gain:.3f} bit here")

# %% [markdown]
# ## 15.5 Scales of rows
#
# Equal cells are steps $\propto 1 / \sqrt{c_i d_j}$: scales of rows beside those of columns, on the same grid of
# 1/16 octave, some 5 bits a row. A decoder needs nothing else; the entropy model knows factors of rows already.
# The gap of a two-sided layer to its own bound is then that of a one-sided layer to its own, plus those bits.

# %%
n = 192
weight, metric = rng.standard_normal((n, n)), lq.Metric(moment(n, 1.5), moment(n, 1.5))
best = functools.partial(lq.recipes.watersic, mmse=0.0, sweeps=0)
gaps = {}
for name, cell in {"cube": Uniform(), "lattice": Lattice(Leech24), "trellis": Trellis(256)}.items():
    recipe = functools.partial(best, quantizer=cell)
    two = lq.at_rate(5.0, recipe, weight, metric)
    one = lq.at_rate(5.0, recipe, weight, metric.inputs)
    gaps[name] = two.gap(weight, metric), one.gap(weight, metric.inputs)
    assert two.distortion(weight, metric) < 0.7 * one.distortion(weight, metric)
    assert 0 < gaps[name][0] < gaps[name][1] + 0.12
print({name: tuple(round(gap, 3) for gap in pair) for name, pair in gaps.items()})

# %% [markdown]
# ## 15.6 Why G is damped, and why the prediction is twice the truth
#
# $G$ is a mean over the gradients of so many tokens, and $G \otimes \Sigma$ only resembles the Fisher information.
# Suppose that what errors really cost is $F = G \otimes \Sigma + $ a rest that knows nothing of the eigenvectors of
# $G$, of mean $\delta$ times that of $G$. Whoever minimizes with $G$ alone pushes errors into its small eigenvalues,
# where the rest is all there is; the best metric of that form is $(G + \delta \bar g I) \otimes \Sigma$. A metric with
# half of the spread is what remains, and about half of (15.4) comes true. On a small Llama shares from 0.3 to 1 are
# best and nearly alike, in its own kind of text and another; 0.1 loses a tenth at three bits and nearly all at two.
# `Metric.damped` takes 0.3, which is measured, not derived.

# %%
shares = np.array([0.0, 0.1, 0.3, 1.0, 3.0])
truth = 0.5  # the rest, of the mean diagonal
mean = spread.mean()
costs = []
for share in shares:
    assumed = (spread + share * mean) / (1 + share)
    errors = 1 / assumed * np.exp(np.log(assumed).mean())  # equal products: what cancellation makes of a budget of bits
    costs.append(np.mean(errors * (spread + truth * mean)))
costs = np.array(costs) / np.mean(spread + truth * mean)
assert costs[0] > 1  # without damping it is worse than one side alone
assert costs[2] < 1.02 * costs.min() or costs[3] < 1.02 * costs.min()
plt.figure(figsize=(5, 3))
plt.plot(shares, costs, "o-")
plt.axhline(1, color="gray", lw=0.5)
plt.xlabel("damping of G")
plt.ylabel("true cost, one side = 1")
plt.tight_layout()

# %% [markdown]
# ## 15.7 Low rates: a penalty on both sides
#
# A weight with less variance than its cell, in a row that hardly counts or a layer that does not matter, costs more
# error than zero would, and what is fed back into it costs more bits than it has itself. Note 2.6 charges the
# reconstruction: $\theta \operatorname{tr} \hat W \hat W^{\mathsf T}$ in coordinates where weights have variance one,
# $\theta$ the noise of a cell. The loop takes Kronecker products only, so each side is charged where the other has its
# mean: with variances $\rho_i \kappa_j$,
#
# $$H = (G + J) \otimes (\Sigma + J'), \qquad
# J_{ii} = \frac{\theta}{\rho_i\, \overline{\Sigma_{jj} \kappa_j}}, \qquad
# J'_{jj} = \frac{\theta}{\kappa_j\, \overline{G_{ii} \rho_i}}. \tag{15.5}$$
#
# The penalty is $G \otimes J' + J \otimes \Sigma + J \otimes J'$. The minimum $(G + J)^{-1} G\, W\, \Sigma
# (\Sigma + J')^{-1}$ splits again: rows are mixed before the loop, columns in it. For a layer a ratio of 0.6 of
# $\theta$ on each side is best, about the square root of the whole rule of one side. For a chain of layers it shrinks
# too much: on a small Llama KL at 2 bits is .086, .067, .066, .094 for ratios 0, 0.2, 0.3, 0.6, and at 3 bits .0098,
# .0093, .0105 for 0, 0.3, 0.6. `lattq.recipes.two_sided` takes 0.2, the flat side of that.

# %%
n = 96
weight = rng.standard_normal((n, n))
wild = rng.standard_normal((8 * n, n)) @ rng.standard_normal((n, n))
metric = lq.Metric(np.eye(n), wild.T @ wild / len(wild))  # outputs that count 10⁴ times as much as others
step = 0.5 * float(np.sqrt(np.mean(np.diag(metric.outputs[0]))))
found = {
    ratio: lq.quantize(weight, metric, lq.recipes.two_sided(step, mmse=ratio)).gap(weight, metric)
    for ratio in (0.0, 0.3, 0.6)
}
print({ratio: round(gap, 2) for ratio, gap in found.items()})
assert found[0.0] > found[0.3] + 0.5
assert found[0.3] < 0.6
assert found[0.6] < 0.6

# %% [markdown]
# ## 15.8 Fixed rates
#
# Integers have a step for each row and group of columns, of least error, whatever that error costs: rows that hardly
# count cannot be given larger cells, and (15.4) shrinks to what feedback along rows takes out of each row. On a small
# Llama that is .87 of the error that counts, .54 to .83 for layers of attention, but .99 where hidden units are nearly
# independent. Targets also move outside the range that their step was chosen for, and what is cut there is fed on.
# Passes that visit the columns again, each given all others, mend that: .87 becomes .78 after two, .76 after four and
# .75 after six at 3 bits, .81, .80 and .78 at 4 bits, for no byte. The steps of all rows and groups, fitted to their
# codes in the metric, are worth another hundredth.

# %%
mixed = rng.standard_normal((8 * n, n)) @ rng.standard_normal((n, n))
metric = lq.Metric(mixed.T @ mixed / len(mixed), wild.T @ wild / len(wild)).damped()
integers = {
    sweeps: lq.quantize(weight, metric, lq.recipes.yaqa(8, sweeps=sweeps)).distortion(weight, metric)
    for sweeps in (0, 2, 4)
}
one_sided = lq.quantize(weight, metric, lq.recipes.gptq(8)).distortion(weight, metric)
print({sweeps: round(found / one_sided, 2) for sweeps, found in integers.items()})
assert integers[4] < integers[2] < integers[0] < one_sided
assert integers[4] < 0.95 * integers[0]
