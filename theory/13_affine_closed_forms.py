# %% [markdown]
# # 13. Maps in closed form
#
# A layer computes $W x$. Any invertible $A$ may stand between: weights become $W A^\top$, inputs $A^{-\top} x$, and the
# product is the same until something is rounded. Which $A$ is best? It depends on what follows. Before an entropy coder
# inputs want to be white (13.2), before a fixed number of levels both sides want the same second moment (13.3), and
# feedback moves the optimum (13.5). All have closed forms. Training can refine them (13.4), and need not start from the
# identity.

# %%
import dataclasses
import math

import matplotlib.pyplot as plt
import numpy as np

import lattq as lq
from lattq.affine import balanced, gain, wush
from lattq.affine.closed_forms import whitening
from lattq.affine.decoders import least_squares_decoder
from lattq.affine.gains import entropy_coded_loss
from lattq.affine.scales import smoothquant_scales
from lattq.linalg.hadamard import randomized_hadamard
from lattq.transforms import WUSH, Balanced, Hadamard, then
from lattq.transforms.affine import Affine

rng = np.random.default_rng(0)

# %% [markdown]
# ## 13.1 What a map moves
#
# With $\Sigma = E[x x^\top]$ the error of the output is $\operatorname{tr} (W - \hat W) \Sigma (W - \hat W)^\top$. In
# the new coordinates the second moments are
#
# $$ \text{of the weights:}\; A\, W^\top W A^\top, \qquad \text{of the inputs:}\; A^{-\top} \Sigma A^{-1}. \tag{13.1} $$
#
# What shrinks on one side grows on the other. Let $L^\top L = \Sigma$ and $L W^\top = U S V^\top$. The numbers
# $s_1, \dots, s_n$, singular values of $W \Sigma^{1/2}$, are all that no map changes: every pair of second moments
# (13.1) has a product whose eigenvalues are $s_i^2$. One family puts a share $p$ of each on the inputs,
#
# $$ A_p = S^{-p}\, U^\top L , \qquad\text{weights } S^{2 - 2p}, \quad \text{inputs } S^{2p} , \tag{13.2} $$
#
# both diagonal. At $p = 0$ inputs are white, at $p = 1$ weights are.


# %%
def moments(weight: np.ndarray, sigma: np.ndarray, matrix: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of weights and inputs after a map."""
    inverse = np.linalg.inv(matrix)
    return matrix @ weight.T @ weight @ matrix.T, inverse.T @ sigma @ inverse


n = 24
weight = rng.standard_normal((40, n)) * np.exp(0.7 * rng.standard_normal(n))
mix = rng.standard_normal((n, n)) * np.exp(rng.standard_normal(n))
sigma = mix @ mix.T / n
s = np.linalg.svd(weight @ np.linalg.cholesky(sigma), compute_uv=False)
for p in (0.0, 0.3, 0.5, 1.0):
    of_weights, of_inputs = moments(weight, sigma, balanced(weight, sigma, damping=0.0, share=p))
    assert np.allclose(of_weights, np.diag(s ** (2 - 2 * p)), atol=1e-8 * s[0] ** 2)
    assert np.allclose(of_inputs, np.diag(s ** (2 * p)), atol=1e-8 * s[0] ** 2)
for _ in range(10):
    of_weights, of_inputs = moments(weight, sigma, np.eye(n) + 0.3 * rng.standard_normal((n, n)) / math.sqrt(n))
    found = np.sort(np.abs(np.linalg.eigvals(of_weights @ of_inputs)))[::-1]
    assert np.allclose(found, s**2, rtol=1e-6)

# %% [markdown]
# ## 13.2 Entropy-coded: white inputs
#
# One step $\Delta$ for all coordinates, rounded without feedback and entropy coded. At high rate the rate is
# $h(A w) - \log_2 \Delta = h(w) + \frac1n \log_2 |\det A| - \log_2 \Delta$ a weight, the error
# $\frac{\Delta^2}{12} \cdot \frac1n \operatorname{tr} A^{-\top} \Sigma A^{-1}$. At a given error the map costs
#
# $$ \frac12 \log_2 \frac{\tfrac1n \operatorname{tr} A^{-\top} \Sigma A^{-1}}{\det (A^{-\top} \Sigma A^{-1})^{1/n}}
#    \;\ge\; 0 \text{ bits a weight}, \tag{13.3} $$
#
# arithmetic over geometric mean of the eigenvalues: 0 just where they are all alike, $A^\top A \propto \Sigma$,
# whatever rotation follows. The weights have dropped out, if the coder knows how their columns depend on each other;
# one that codes column by column wants the rotation that makes them uncorrelated, and that is $A_0 = U^\top L$. A loss
# of the same form, of pivots in place of eigenvalues, is what an unequal spread costs with feedback (1.17). Feedback is
# the cheaper way: successive cancellation makes $\Sigma$ diagonal without any matrix, `Equalize` does the rest.

# %%
gaussian = np.random.default_rng(1).standard_normal((1 << 16, n))


def bits_at(matrix: np.ndarray, error: float) -> float:
    """Bits a weight at this error, columns coded one by one; each further bit makes it a quarter."""
    moved = gaussian @ matrix.T
    step = float(np.sqrt(np.mean(np.square(moved)))) / 100
    codes = np.rint(moved / step)
    left = (step * codes - moved) @ np.linalg.solve(matrix.T, np.linalg.cholesky(sigma))
    shares = [np.unique(column, return_counts=True)[1] / len(codes) for column in codes.T]
    seen = [-(one @ np.log2(one)) + (len(one) - 1) / (2 * len(codes) * math.log(2)) for one in shares]  # Miller, Madow
    return float(np.mean(seen) + 0.5 * math.log2(np.mean(np.square(left)) / error))


start = bits_at(balanced(gaussian, sigma, damping=0.0, share=0.0), 1e-4)
for p in (0.0, 0.25, 0.5):
    matrix = balanced(gaussian, sigma, damping=0.0, share=p)
    lost = entropy_coded_loss(sigma, matrix)
    print(f"p = {p:4.2f}: {lost:.3f} bits predicted, {bits_at(matrix, 1e-4) - start:.3f} measured")
    assert abs(bits_at(matrix, 1e-4) - start - lost) < 0.02
correlated = whitening(sigma, damping=0.0)
assert entropy_coded_loss(sigma, correlated) < 1e-6
assert bits_at(correlated, 1e-4) > start + 0.5

# %% [markdown]
# ## 13.3 A fixed number of levels: equal sides
#
# With $b$ bits for each number the step follows the largest magnitude, and the error of a row is its squared peak over
# $3 \cdot 4^b$ in every coordinate, weighted by the inputs. Peak over root mean square is the crest factor; if that is
# alike everywhere, the error is proportional to
#
# $$ \lVert \Sigma^{1/2} A^{-1} \rVert_F^2 \, \lVert W A^\top \rVert_F^2 \;\ge\; \lVert W \Sigma^{1/2} \rVert_*^2
#    = \Bigl( \sum_i s_i \Bigr)^2 . \tag{13.4} $$
#
# *Proof.* With $P = W A^\top$ and $Q = A^{-\top} \Sigma^{1/2}$, $P Q = W \Sigma^{1/2}$, and the nuclear norm of a
# product is at most $\lVert P \rVert_F \lVert Q \rVert_F$: for orthogonal $O$,
# $\operatorname{tr} O P Q \le \lVert P \rVert_F \lVert Q \rVert_F$ by Cauchy and Schwarz, and the maximum over $O$ is
# the nuclear norm. $A_{1/2}$ attains it: both sides have $\operatorname{tr} S$. $\square$
#
# So **the largest gain of any map** over none, in decibels, is known before anything is rounded or trained:
#
# $$ 10 \log_{10} \frac{\operatorname{tr} \Sigma \, \lVert W \rVert_F^2}{\lVert W \Sigma^{1/2} \rVert_*^2} .
#    \tag{13.5} $$
#
# For block-diagonal maps the blocks' norms add up, $(\sum_g \lVert W_g \Sigma_g^{1/2} \rVert_*)^2$, since a scalar for
# each block balances the blocks against each other as well; blocks of one column are all scales there are, SmoothQuant,
# AWQ and learned ones: $(\sum_j \lVert w_j \rVert \, \Sigma_{jj}^{1/2})^2$. A rotation after $A_{1/2}$ changes no
# Frobenius norm, and a Hadamard matrix $H$ makes $\operatorname{diag} H S H^\top$ constant: crest factors become alike,
# which (13.4) took for granted. $H A_{1/2}$, block by block, is WUSH (Chen et al. 2026).

# %%
largest = gain(weight, sigma)
assert math.isclose(largest, 10 * math.log10(np.trace(sigma) * np.sum(weight**2) / s.sum() ** 2))
for _ in range(200):
    assert gain(weight, sigma, np.eye(n) + rng.standard_normal((n, n)) / math.sqrt(n)) <= largest
    assert gain(weight, sigma, np.diag(np.exp(rng.standard_normal(n)))) <= gain(weight, sigma, block=1)
best_scales = np.sqrt(np.sqrt(np.diag(sigma)) / np.linalg.norm(weight, axis=0))
assert math.isclose(gain(weight, sigma, np.diag(best_scales)), gain(weight, sigma, block=1))
sizes = [1, 2, 4, 8, 24]
by_block = [gain(weight, sigma, block=size) for size in sizes]
assert np.all(np.diff(by_block) >= 0)
assert math.isclose(by_block[-1], largest)
for size in (4, 8):
    flat = moments(weight, sigma, wush(weight, sigma, block=size, damping=0.0))
    assert all(np.allclose(np.diag(one).reshape(-1, size), np.diag(one)[::size, None]) for one in flat)

# %% [markdown]
# The two regimes are different optima of the same family (13.2), and each is bad in the other's place:

# %%
regimes = {
    name: (entropy_coded_loss(sigma, matrix), largest - gain(weight, sigma, matrix))
    for name, matrix in {
        "none": np.eye(n),
        "white inputs": whitening(sigma, damping=0.0),
        "balanced": balanced(weight, sigma, damping=0.0),
    }.items()
}
for name, (bits, decibels) in regimes.items():
    print(f"{name:12s} loses {bits:.3f} bits entropy-coded, {decibels:5.2f} dB with a fixed number of levels")
assert regimes["white inputs"][0] < 1e-6 < 0.3 < regimes["balanced"][0]
assert regimes["balanced"][1] < 1e-6 < 1.0 < regimes["white inputs"][1]

# %% [markdown]
# ## 13.4 The reference form
#
# Maps that are invertible by diagonal dominance, $D (I + N)$ with $\lVert N \rVert_\infty \le \rho < 1$, cannot
# be Hadamard matrices, permutations, or $A_{1/2}$: they leave a single loud input at least $1 / (1 + \rho^2)$ of its
# height. Written around a reference,
#
# $$ A = D\, (I + N)\, T_0, \qquad \kappa_\infty\bigl((I + N)\, T_0\bigr) \le \frac{1 + \rho}{1 - \rho}\,
#    \kappa_\infty(T_0), \tag{13.6} $$
#
# the certificate is the same and $T_0$ any matrix that is known to be good. With $T_0 = H A_{1/2}$ that input is gone
# before training begins: a map that only mixes it a little cannot do it, an orthogonal one does it at once.

# %%
loud = np.zeros(64)
loud[5] = 100.0
noise = rng.uniform(-1.0, 1.0, (64, 64))
np.fill_diagonal(noise, 0.0)
for rho in (0.5, 0.9):
    near = np.eye(64) + rho * noise / np.abs(noise).sum(axis=1, keepdims=True)
    assert np.abs(np.linalg.solve(near.T, loud)).max() >= 100.0 / (1 + rho**2)
assert np.isclose(np.abs(randomized_hadamard(loud, 0)).max(), 100.0 / 8)

# %% [markdown]
# ## 13.5 With feedback, and with another decoder
#
# Successive cancellation counts pivots, not variances: in place of $\operatorname{tr} A^{-\top} \Sigma A^{-1}$ stands
# the sum of its pivots, at least $n \det(\cdot)^{1/n}$, attained by a suitable rotation. The least of
# $\frac1n \sum d_i \cdot \lVert W A^\top \rVert_F^2$ is then $n \bigl(\prod_i s_i\bigr)^{2/n}$, with *white weights*,
# $p = 1$: arithmetic and geometric mean of $s$ are what feedback may gain over (13.4),
#
# $$ \Bigl(\frac1n \sum_i s_i\Bigr)^2 \to \Bigl(\prod_i s_i\Bigr)^{2/n} . \tag{13.7} $$
#
# In practice the Hadamard matrix's pivots are not equal and damping lifts the small ones, so that the best share lies
# between: about $p = 3/4$.
#
# Where the inverse stays at run time anyway, nothing says that it must be the inverse. For codes that decode to
# $\hat W$, the best matrix in its place is $T = (\hat W^\top \hat W)^{-1} \hat W^\top W$, for every $\Sigma$ at once:
# $\hat W T$ is the projection of $W$ onto the columns of $\hat W$, and $\lVert (I - P)\, W \Sigma^{1/2} \rVert$ is the
# least that columns of $\hat W$ can leave of any $W \Sigma^{1/2}$.


# %%
def layer(n: int, tokens: int, rows: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Weights with heavy tails, and inputs to fit and to test: correlated, a few of them loud."""
    basis = np.linalg.qr(rng.standard_normal((n, n)))[0]
    inputs = rng.standard_normal((2 * tokens, n)) * np.arange(1, n + 1) ** -0.75 @ basis
    inputs *= np.exp(0.5 * rng.standard_normal(n)) / inputs.std()
    inputs[:, rng.choice(n, 4, replace=False)] *= 8.0
    return rng.standard_t(8, (rows, n)), inputs[:tokens], inputs[tokens:]


rng = np.random.default_rng(0)
heavy, fit, test = layer(256, 2048, 256)
second = fit.T @ fit / len(fit)
plain = float(np.trace(heavy @ second @ heavy.T)) / heavy.size


def error_after(recipe: lq.Scheme, design: object) -> lq.Quantized:
    """A layer of the scheme with this transform."""
    return lq.quantize(heavy, second, dataclasses.replace(recipe, transform=design))


shares = [0.0, 0.25, 0.5, 0.75, 1.0]
recipes = {"open loop": lq.recipes.rtn(8, group=None), "feedback": lq.recipes.gptq(8, group=None)}
curves = {
    name: [error_after(recipe, then(Balanced(share=p), Hadamard(1))).distortion(heavy, second) / plain for p in shares]
    for name, recipe in recipes.items()
}
assert np.argmin(curves["open loop"]) == 2
assert np.argmin(curves["feedback"]) == 3
assert curves["feedback"][3] < 0.85 * curves["feedback"][2]
tall = rng.standard_t(8, (2048, 256))
for levels in (4, 8):
    scheme = dataclasses.replace(lq.recipes.rtn(levels, group=None), transform=WUSH(block=None))
    coded = lq.quantize(tall, second, scheme)
    decoder = Affine(least_squares_decoder(tall, coded.decoded()))
    better = coded.revalued(transform=decoder).distortion(tall, second) / coded.distortion(tall, second)
    print(f"{levels} levels: the least-squares decoder takes {1 - better:.1%} of the error away")
    assert better < 0.95

# %% [markdown]
# ## 13.6 A table without training
#
# Relative error of the output on held-out inputs, rounded to nearest: a range for each row of weights (and each token,
# in the last column), with a zero point. A diagonal takes a part of the loud inputs away, a rotation takes away crest
# factors, and only the map of (13.4) does all of both. White inputs are the worst map there is here.


# %%
def rounded(x: np.ndarray, levels: int) -> np.ndarray:
    """Each row to so many levels between its least and its largest."""
    low, high = x.min(axis=1, keepdims=True), x.max(axis=1, keepdims=True)
    step = (high - low) / (levels - 1)
    zero = np.rint(-low / step)
    return step * (np.clip(np.rint(x / step) + zero, 0, levels - 1) - zero)


def rotated(matrix: np.ndarray) -> np.ndarray:
    """A map, then the Hadamard matrix."""
    return randomized_hadamard(matrix.T.copy(), 1).T


smooth = np.diag(smoothquant_scales(np.abs(fit).max(axis=0), heavy))
even = balanced(heavy, second)
maps = {
    "none": np.eye(256),
    "smooth": smooth,
    "Hadamard": rotated(np.eye(256)),
    "smooth, Hadamard": rotated(smooth),
    "white inputs": whitening(second),
    "balanced": even,
    "balanced, Hadamard": rotated(even),
}
output = test @ heavy.T
found = {}
for name, matrix in maps.items():
    inputs, moved = np.linalg.solve(matrix.T, test.T).T, heavy @ matrix.T
    pairs = [(inputs, rounded(moved, levels)) for levels in (4, 8, 16)] + [(rounded(inputs, 16), rounded(moved, 16))]
    found[name] = [float(np.sum((x @ w.T - output) ** 2) / np.sum(output**2)) for x, w in pairs]
    print(f"{name:20s}", *(f"{error:.4f}" for error in found[name]), f"{gain(heavy, second, matrix):6.2f} dB")
for column in range(4):
    errors = {name: row[column] for name, row in found.items()}
    assert min(errors, key=lambda name: errors[name]) == "balanced, Hadamard"
    assert errors["smooth, Hadamard"] < min(errors["smooth"], errors["Hadamard"]) < errors["none"]
    assert errors["balanced"] < errors["smooth"]
assert max(found, key=lambda name: found[name][1]) == max(found, key=lambda name: found[name][2]) == "white inputs"
assert 5 < found["none"][1] / found["balanced, Hadamard"][1] < 20
predicted = gain(heavy, second, rotated(even)) - gain(heavy, second, rotated(smooth))
measured = 10 * math.log10(found["smooth, Hadamard"][2] / found["balanced, Hadamard"][2])
assert abs(predicted - measured) < 1.0

# %%
figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4), layout="constrained")
for name, curve in curves.items():
    left.semilogy(shares, curve, "o-", label=name)
left.set(xlabel="share p on the inputs", ylabel="relative error", title="13.5: eight levels, Hadamard after $A_p$")
left.legend()
for name, matrix in maps.items():
    grouped = gain(heavy, second, matrix, group=256)
    right.plot(grouped, 10 * math.log10(found["none"][2] / found[name][2]), "o", label=name)
right.axline((0.0, 0.0), slope=1.0, color="tab:gray", linestyle="--")
right.set(xlabel="predicted gain, dB", ylabel="measured gain, dB", title="13.6: 16 levels, weights only")
right.legend(fontsize="small")
plt.close(figure)
figure
