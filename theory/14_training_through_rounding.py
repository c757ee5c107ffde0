# %% [markdown]
# # 14. Training through rounding
#
# Closed forms (note 13) know second moments. Training sees what rounding really does to the outputs of a block. Four
# questions decide whether it helps: what gradient rounding has, in which metric errors count, what keeps a learned
# map invertible, and how much may be learned from how many tokens.
#
# In the code: `lattq.llm.tune.straight_through` (14.1), `lattq.llm.measure.sensitivity` (14.2), `learned` (14.3),
# `trained` (14.4).

# %%
import matplotlib.pyplot as plt
import numpy as np

from lattq.affine import certificate
from lattq.affine.projections import onto_l1_ball
from lattq.affine.schedules import growing_ratio

rng = np.random.default_rng(14)

# %% [markdown]
# ## 14.1 The gradient of rounding, and of its range
#
# A weight $w$ in a group with least and largest entries $l \le 0 \le h$ becomes $\hat w = s\,(\mathrm{clip}(r(w/s) +
# z) - z)$, with $s = (h - l)/(L - 1)$ and $z = r(-l/s)$. Almost everywhere $\partial r = 0$; the straight-through
# rule takes $\partial r = 1$. With $e = r(w/s) - w/s$ held fixed, $\hat w = w + s e$, so that
#
# $$\frac{\partial \hat w}{\partial w} = 1, \qquad \frac{\partial \hat w}{\partial s} = e. \tag{14.1}$$
#
# The second half is not optional. A scale $t$ of one column moves $\hat w / t$ only through $s$: by the first half
# alone $\hat w / t = w + s e / t$ has derivative $-s e / t^2$, as if $s$ were a constant, which says "make every
# scale larger" until the column sets the range of its group by itself. With many rows the loss is nearly smooth, and
# differences of it say which of the two is its gradient.

# %%
LEVELS = 8


def rounded(weight: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows to `LEVELS` integers over their range; what rounding added, in steps, and the steps."""
    low, high = np.minimum(weight.min(1), 0)[:, None], np.maximum(weight.max(1), 0)[:, None]
    step = (high - low) / (LEVELS - 1)
    zero = np.rint(-low / step)
    found = step * (np.clip(np.rint(weight / step) + zero, 0, LEVELS - 1) - zero)
    return found, (found - weight) / step, step


n, rows = 32, 2000
weight = rng.standard_normal((rows, n))
powers = np.geomspace(30, 0.03, n)


def loss(logarithm: np.ndarray) -> float:
    """Error of the output where column j is scaled by exp(logarithm_j)."""
    scale = np.exp(logarithm)
    return float(np.sum(((rounded(weight * scale)[0] / scale - weight) ** 2) @ powers))


def slope(logarithm: np.ndarray, through_range: bool) -> np.ndarray:
    """Its gradient by (14.1), with and without the range."""
    scale = np.exp(logarithm)
    moved = weight * scale
    _, added, step = rounded(moved)
    error = step * added / scale  # of the output's weights
    found = -2 * np.sum(error**2, axis=0) * powers
    if through_range:
        by_step = 2 * np.sum(error * powers * added / scale, axis=1)
        for ends, sign in ((moved.argmax(1), 1), (moved.argmin(1), -1)):
            reach = sign * by_step * moved[np.arange(rows), ends] / (LEVELS - 1)
            found += np.bincount(ends, reach, minlength=n)
    return found


true = np.array([(loss(0.05 * one) - loss(-0.05 * one)) / 0.1 for one in np.eye(n)])
cosines = {}
for through_range in (True, False):
    found = slope(np.zeros(n), through_range)
    cosines[through_range] = float(found @ true / np.linalg.norm(found) / np.linalg.norm(true))
print(f"cosine with the true gradient: {cosines[True]:.3f}, without the range {cosines[False]:.3f}")
assert cosines[True] > 0.97
assert cosines[False] < 0.9

# %% [markdown]
# ## 14.2 In which metric a block's outputs should be right
#
# Let a block's output be off by $e$. The predictions move by $\mathrm{KL} \approx \tfrac12 e^\top G e$, with $G$ the
# Fisher information of the hidden state: the second moment of the gradients of the log-likelihood of outcomes that
# the model itself draws (the same draws that allocate bits to layers). Averaged over tokens $G$ is one small matrix a
# block, and one backward pass over the calibration text gives all of them. Squared error is $G = I$; on language
# models $G$ is far from that: most directions hardly matter to any later layer.
#
# $G$ is an average over tokens of a curvature at the unrounded state, so directions in which it nearly vanishes are
# not free: `Trained` adds a part of its mean diagonal (`damping`). A linear readout shows the quadratic law.

# %%
readout = rng.standard_normal((50, 8)) * np.geomspace(2, 0.02, 8)
states = rng.standard_normal((400, 8))


def log_softmax(x: np.ndarray) -> np.ndarray:
    """Along the last axis."""
    x = x - x.max(-1, keepdims=True)
    return x - np.log(np.exp(x).sum(-1, keepdims=True))


logs = log_softmax(states @ readout.T)
p = np.exp(logs)
fisher = np.mean([readout.T @ (np.diag(one) - np.outer(one, one)) @ readout for one in p], axis=0)
drawn = np.array([rng.choice(50, p=one) for one in p])
gradients = readout[drawn] - p @ readout
assert np.allclose(gradients.T @ gradients / 400, fisher, atol=6 * np.abs(fisher).max() / np.sqrt(400))
for direction in np.eye(8)[[0, 3, 7]]:
    error = 0.05 * direction * rng.choice([-1, 1], (400, 1))
    divergence = float(np.mean(np.sum(p * (logs - log_softmax((states + error) @ readout.T)), axis=-1)))
    predicted = 0.5 * 0.05**2 * direction @ fisher @ direction
    print(f"KL {divergence:.2e}, by the metric {predicted:.2e}")
    assert abs(divergence / predicted - 1) < 0.15

# %% [markdown]
# ## 14.3 Certified on the way
#
# Learned matrices are $A = D (I + N)$ around what was folded before. After each step of Adam every row of $N$ is
# projected onto an ℓ1 ball whose radius grows from 0 to $\rho < 1$ over the first half (12.4): first only scales are
# learned, then the off-diagonals, and at no step is there a map that note 12 does not certify. The published mask
# lets the band of off-diagonals grow instead, and bounds nothing: the same steps without the projection leave the
# dominant set at once.

# %%
steps = 40
certified, free = np.zeros((n, n)), np.zeros((n, n))
ratios = []
for step in range(1, steps + 1):
    move = 0.05 * np.sign(rng.standard_normal((n, n))) * (1 - np.eye(n))  # what a step of Adam is at most
    radius = growing_ratio(step, steps, 0.9)
    certified = onto_l1_ball(certified + move, np.full(n, radius))
    free = free + move
    ratios.append((certificate(np.eye(n) + certified, measure=False).row_ratio, np.abs(free).sum(1).max()))
    assert ratios[-1][0] <= radius * (1 + 1e-12)
print(f"largest off-diagonal sum: {ratios[-1][0]:.2f} projected, {ratios[-1][1]:.1f} free")
assert ratios[-1][1] > 10

# %% [markdown]
# ## 14.4 How much may be learned
#
# Maps have few numbers: a diagonal learns $n$ for a matrix of rows × $n$ weights. Where weights themselves are
# learned (the gradient (14.1) goes to them too), there are as many numbers as weights, and with $T$ tokens the error
# that training sees falls below the error elsewhere. For one layer and squared error everything is explicit: from
# $\hat w = $ round(w), the gradient is $2\,(\hat w - w_0)\,\hat\Sigma$, with the second moment of the tokens seen;
# Adam follows it. Held-out tokens decide when to stop: never after what they call worse than plain rounding.

# %%
basis = np.linalg.qr(rng.standard_normal((n, n)))[0]
sigma = basis * np.geomspace(9, 0.01, n) @ basis.T
root = np.linalg.cholesky(sigma)


def learned(tokens: int, steps: int = 600) -> tuple[list[float], list[float]]:
    """Errors over plain rounding's, as training sees them and in truth, step by step."""
    seen = root @ rng.standard_normal((n, tokens))
    moment, start = seen @ seen.T / tokens, weight[:64]
    at, mean, power = start.copy(), np.zeros_like(start), np.zeros_like(start)
    curves: tuple[list[float], list[float]] = ([], [])
    for step in range(steps):
        error = rounded(at)[0] - start
        for curve, metric in zip(curves, (moment, sigma), strict=True):
            curve.append(float(np.sum((error @ metric) * error)))
        gradient = error @ moment
        mean, power = 0.9 * mean + 0.1 * gradient, 0.999 * power + 0.001 * gradient**2
        at = at - 0.003 * (1 - step / steps) * mean / np.sqrt(power / (1 - 0.999 ** (step + 1)))
    return tuple([one / curve[0] for one in curve] for curve in curves)  # type: ignore[return-value]


figure, axes = plt.subplots(1, 2, figsize=(10, 3.6), layout="constrained", sharey=True)
least = {}
for axis, tokens in zip(axes, (16, 2048), strict=True):
    training, truth = learned(tokens)
    least[tokens] = min(training), min(truth)
    axis.semilogy(training, label="tokens that train")
    axis.semilogy(truth, label="all tokens")
    axis.set(title=f"{tokens} tokens for {n} columns", xlabel="step", ylabel="error over plain rounding's")
axes[0].legend()
print({tokens: tuple(round(one, 3) for one in pair) for tokens, pair in least.items()})
assert least[16][0] < 0.8 * least[16][1]
assert abs(least[2048][0] / least[2048][1] - 1) < 0.05
assert least[2048][1] < 0.8
plt.close(figure)
figure
