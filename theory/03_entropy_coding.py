# %% [markdown]
# # 3. Entropy coding
#
# Note 2 ends with integers $z_{rj} = \operatorname{round}(t_{rj}/c)$ and promises $\tfrac12\log\frac{2\pi e}{12}$ if
# an ideal coder knows their distributions. This note turns them into bytes: why entropies are not rates and what a
# discretised Gaussian needs (3.1), what one histogram for the whole matrix costs (3.2), the scales of rows and
# columns (3.3), what the decoder must be told (3.4), and what streams that decode fast cost (3.5).
#
# Logarithms are binary unless written $\ln$; AM and GM are arithmetic and geometric means.

# %%
import heapq
import math
from pathlib import Path

import matplotlib.pyplot as plt
import msgpack
import numpy as np
from safetensors.torch import load_file
from scipy.special import gammaln, ndtr
from scipy.stats import norm

import lattq as lq
from lattq.coding import Pooled, TwoWay
from lattq.coding.interleaved import encode_symbols
from lattq.coding.slots import SLOT_BITS, WIDEST, gaussians, kinds_of_codes, low_bits, slot_counts
from lattq.coding.tables import expected_gain, gaussian_counts, limit, scale_class
from lattq.coding.twoway import share
from lattq.feedback import successive_cancellation
from lattq.linalg import ldl
from lattq.quantizers import Uniform

rng = np.random.default_rng(3)


def gaussian(scales: np.ndarray, size: int) -> np.ndarray:
    """(3.2) for each scale, over the integers -size ... size."""
    edges = np.arange(-size, size + 2) - 0.5
    return np.diff(ndtr(edges / np.reshape(scales, (-1, 1))), axis=1)


def entropy(p: np.ndarray) -> np.ndarray:
    """Bits of each row of probabilities."""
    return -np.sum(p * np.log2(np.maximum(p, 1e-300)), axis=-1)


def bits(coded: list | bytes) -> int:
    """Length of what a coder returned, as the container stores it."""
    return 8 * len(msgpack.packb(coded))


# %% [markdown]
# ## 3.1 Lengths, Gaussians, frozen tables
#
# **An entropy is not a rate.** Let $\hat p_k$ be the frequencies of $N$ integers that take $K$ values. The plug-in
# entropy $\hat H = -\sum_k \hat p_k \log \hat p_k$ is the code length under the model that fits these integers best,
# chosen after seeing them and free of charge. With $H$ the entropy of the true $p$, $2 N (\ln 2) D(\hat p \Vert p)$
# is a likelihood ratio of $K-1$ free parameters, with mean $K - 1$, so
#
# $$ \mathbf E \hat H = H - \mathbf E D(\hat p \Vert p) \approx H - \frac{K-1}{2 N \ln 2} . \tag{3.1} $$
#
# Per column of 256 rows, at 6 bits, it is 0.3 bit too low: reported so, a "rate" can lie below the rate–distortion
# function. Here rates are lengths of files from which the weights can be decoded.

# %%
step, gaps, biases = 1 / 18, {}, {}
for rows in (256, 4096):
    weight = rng.standard_normal((rows, 64))
    codes = np.rint(weight / step).astype(np.int64)
    counts = [np.unique(column, return_counts=True)[1] for column in codes.T]
    bound = lq.bounds.gaussian_rate(1.0, np.mean((weight - step * codes) ** 2))
    gaps[rows] = np.mean([entropy(count / rows) for count in counts]) - bound
    biases[rows] = np.mean([len(count) - 1 for count in counts]) / (2 * rows * math.log(2))
    length = bits(TwoWay().encode(codes)) / codes.size - bound
    assert 0.2546 < length < 0.2546 + 0.02  # real bytes
assert gaps[256] < -0.05  # a "rate" below the bound
assert abs(gaps[4096] - (0.2546 - biases[4096])) < 0.006  # (3.1), where K is small beside N

# %% [markdown]
# **The model.** By (2.1) targets are close to Gaussian, so with the scale $s$ of $t$ in steps
#
# $$ p_k = \Phi\left(\frac{k + \frac12}s\right) - \Phi\left(\frac{k - \frac12}s\right) : \tag{3.2} $$
#
# one parameter instead of a histogram. A scale that is wrong by $\epsilon$ octaves costs, at high rate, the
# divergence of two Gaussians whose variances have the ratio $\rho = 4^\epsilon$,
#
# $$ \frac1{2 \ln 2} (\rho - 1 - \ln\rho) \approx \epsilon^2 \ln 2 \text{ bits.} \tag{3.3} $$
#
# Classes of 1/8 octave are off by $|\epsilon| \le \frac1{16}$: 0.0027 bit at most, $\frac{\ln 2}{768} = 0.0009$ on
# average. The probabilities of each class are integers out of $2^{24}$, computed once and pinned by a hash: coder and
# decoder must agree on them exactly, on any platform. Beyond $5.5\,s$ an escape takes over.
#
# **The coder.** Asymmetric numeral systems reach $-\sum \log p$ up to the last two words of a stream. Huffman codes
# spend at least one bit on each symbol.

# %%
scales, size = np.exp2(np.linspace(-3, 6, 600)), 400
loss = []
for scale, p in zip(scales, gaussian(scales, size), strict=True):
    index = int(scale_class(np.array([scale]))[0])
    inner, counts = slice(size - limit(index), size + limit(index) + 1), gaussian_counts(index)
    outside = max(0.0, 1 - p[inner].sum())
    loss.append(-p[inner] @ np.log2(counts[:-1] / 2**24) - outside * math.log2(counts[-1] / 2**24) - entropy(p))
assert 0.0025 < max(loss) < 0.0029
assert 0.0 < np.mean(loss) < 0.0009


def huffman(p: np.ndarray) -> float:
    """Mean length of the best prefix code."""
    heap = [q for q in p if q > 1e-12]
    heapq.heapify(heap)
    length = 0.0
    while len(heap) > 1:
        merged = heapq.heappop(heap) + heapq.heappop(heap)
        length += merged
        heapq.heappush(heap, merged)
    return length


excess = {}
for rate in (0.25, 0.5, 1.0, 2.0, 3.0, 4.0):
    scale = 1 / lq.bounds.entropy_coded_scalar(rate).step
    excess[rate] = huffman(gaussian(scale, 200)[0]) - rate
    codes, index = np.rint(scale * rng.standard_normal(50_000)).astype(np.int64), int(scale_class(np.array([scale]))[0])
    ideal = -np.sum(np.log2(gaussian_counts(index)[codes + limit(index)] / 2**24))
    stream = encode_symbols(codes, np.full(codes.shape, kinds_of_codes()[index]), gaussians())
    assert 0.0 <= 8 * len(stream) - ideal < 3e-4 * len(codes) + 40
assert [round(found, 2) for found in excess.values()] == [0.80, 0.63, 0.34, 0.11, 0.07, 0.04]

# %% [markdown]
# ## 3.2 One histogram for all
#
# Published rates are often the entropy of the histogram of all integers of a matrix. If column $j$ has the
# probabilities $p^{(j)}$, the pooled entropy exceeds the mean of the columns' by the information that an integer
# carries about its column,
#
# $$ H\bigl(\overline{p}\bigr) - \overline{H(p^{(j)})} = I(z; j) \ge 0 . \tag{3.4} $$
#
# At high rate $\overline p$ has the variance $\overline{s_j^2}$, and of all densities with that variance the Gaussian
# has the largest entropy:
#
# $$ I(z; j) \le \tfrac12 \log \frac{\mathrm{AM}(s_j^2)}{\mathrm{GM}(s_j^2)} , \tag{3.5} $$
#
# which is $\sigma^2/(4\ln 2)$ bits for $s_j^2 = \exp \mathcal N(0, \sigma^2)$. Equal pivots multiply column $j$ by
# $\sqrt{d_j}$, so WaterSIC's $s_j^2 \propto d_j$ and the right of (3.5) is just the loss (2.4) that equal pivots were
# to avoid: at high rate, with one histogram, WaterSIC is better than GPTQ only by the slack of (3.5). `TwoWay` codes
# each column by its own class.


# %%
quantiles = norm.ppf((np.arange(100) + 0.5) / 100)
spreads, prices, real = np.linspace(0, 2, 9), {}, {}
for rate in (2, 4):
    centre = 2.0**rate / math.sqrt(2 * math.pi * math.e)  # the scale that takes `rate` bits
    prices[rate], real[rate] = [], []
    for spread in spreads:
        scales = centre * np.exp(spread * quantiles / 2)
        p = gaussian(scales, 700)
        prices[rate].append(entropy(p.mean(axis=0)) - entropy(p).mean())
        codes = np.rint(rng.standard_normal((1000, 100)) * scales).astype(np.int64)
        real[rate].append((bits(Pooled().encode(codes)) - bits(TwoWay().encode(codes))) / codes.size)
    assert np.allclose(real[rate], prices[rate], atol=0.03)  # 8 bytes an entry of a histogram are in it
ceiling = spreads**2 / (4 * math.log(2))
assert np.all(prices[4] <= ceiling)
assert 0.60 < prices[4][-1] < 0.61  # spread 2

# %% [markdown]
# ## 3.3 Scales of rows and columns
#
# Rows have scales, too. Let $w_{ri}$ have the variance $\rho_r a_i$, with mean 1 of $\rho$. Rounding errors are as
# large as the cells, in every row alike. Since $W - \hat W = e\, U^{-1}$ by (2.2), what is fed back is
# $t - w = e - e\,U^{-1}$, and with $\operatorname{var} e_j = \theta / d_j$
#
# $$ \operatorname{var} t_{ri} = a_i \rho_r + b_i, \qquad
#    b_i = \sum_{j > i} \frac{\theta}{d_j} (U^{-1})_{ji}^2 = \theta \left( (\Sigma^{-1})_{ii} - \frac1{d_i} \right) .
#    \tag{3.6} $$
#
# The row factor acts on a share of the variance only. To first order in $\ln\rho_r$,
#
# $$ \ln (a_i \rho_r + b_i) \approx \ln (a_i + b_i) + \frac{a_i}{a_i + b_i} \ln \rho_r , \tag{3.7} $$
#
# so with the class $k_i$ of column $i$ and $q_r$ of row $r$ relative to an average row, both of 1/8 octave, the
# integer has the class $k_i + q_r\, \mathrm{share}_i$. If one class $k_0$ stands for the fed-back noise of all
# columns,
#
# $$ \mathrm{share}_i = 1 - \frac b{a_i + b} = 1 - 4^{-(k_i - k_0)/8} , \tag{3.8} $$
#
# in sixteenths, an integer table. The encoder tries a few $k_0$ and keeps the cheapest. A Gaussian model that does
# not know the rows loses all of $\tfrac12\log(\mathrm{AM}/\mathrm{GM})$ of their variances at high rate: its code
# length depends on the second moment only. Row classes are shrunk by what the scatter inside a row explains, and left
# out where that is cheaper.


# %%
def length(codes: np.ndarray, scales: np.ndarray) -> float:
    """Bits per integer of an ideal coder that believes in these scales."""
    low, high = (-np.abs(codes) - 0.5) / scales, (-np.abs(codes) + 0.5) / scales  # the tail that does not cancel
    return float(-np.log2(np.maximum(ndtr(high) - ndtr(low), 1e-300)).mean())


rows, n = 1024, 96
basis = np.linalg.qr(rng.standard_normal((n, n)))[0]
sigma = (basis * np.exp(1.5 * rng.standard_normal(n))) @ basis.T
pivots = ldl(sigma).pivots
equal = sigma / np.sqrt(np.outer(pivots, pivots))  # every pivot is 1
rho = np.exp(0.8 * rng.standard_normal(rows))
rho /= rho.mean()
weight = np.sqrt(np.outer(rho, pivots)) * rng.standard_normal((rows, n))
for theta in (0.001, 0.1):
    step = math.sqrt(12 * theta)
    result = successive_cancellation(weight, ldl(equal), Uniform(step))
    codes, fed_back = result.codes, result.reconstruction + result.noise - weight
    b = theta * (np.diag(np.linalg.inv(equal)) - 1)
    if theta == 0.001:
        assert np.allclose(np.mean(fed_back**2, axis=0)[:-1], b[:-1], rtol=0.25)  # 5 √(2 / rows)
        assert abs(np.corrcoef(np.mean(fed_back**2, axis=1), rho)[0, 1]) < 0.15  # no row factor
    both = length(codes, np.sqrt(np.outer(rho, pivots) + b) / step)
    product = length(codes, np.sqrt(np.outer(rho, pivots + b)) / step)
    columns = length(codes, np.sqrt(np.outer(np.ones(rows), pivots + b)) / step)
    assert both < product + 1e-4 < columns
    if theta == 0.001:
        assert abs(columns - both - 0.5 * (math.log2(rho.mean()) - np.log2(rho).mean())) < 0.012
    else:
        assert product - both > 0.004
    mixed = rng.permuted(codes, axis=0)  # the same columns without rows
    coded = TwoWay().encode(codes)
    assert np.array_equal(TwoWay().decode(coded, codes.shape), codes)
    saved = (bits(TwoWay().encode(mixed)) - bits(coded)) / codes.size
    assert 0.02 < (columns - both) - saved < 0.06  # what 4 bits a row cost each of its 96 weights
distances = np.arange(30)
assert np.abs(share(distances, 0) / 16 - (1 - 4.0 ** (-distances / 8))).max() < 0.04  # (3.8)

# %% [markdown]
# ## 3.4 Side information and gains
#
# **How fine a class?** A column of $m$ rows pays (3.3) $m$ times, on average $m \Delta^2 \ln 2 / 12$ bits for classes
# of $\Delta$ octaves, and $\log(1/\Delta)$ plus a constant to say which it is. The sum is least at
#
# $$ \Delta = \frac{\sqrt{6/m}}{\ln 2} . \tag{3.9} $$
#
# So 1/8 octave is best for 800 rows, and loses at most 0.0023 bit a weight from 200 rows up.
#
# **What is known already.** Column $j$ of an equalised matrix has the scale $\sqrt{d_j}$ times that of its weights.
# The decoder knows $\sqrt{d_j}$, which the transform stores, so only the difference to the class that it predicts is
# stored.
#
# **Gains.** The best factor on the reconstructions of a class is that of (1.19); by (1.20), above
# $s \approx \frac12$,
#
# $$ \gamma = \frac{\mathbf E\, t \hat t}{\mathbf E\, \hat t^2} \approx \frac1{1 + 1/(12 s^2)} . \tag{3.10} $$
#
# The classes predict the gains, and again only differences are stored, in units of 1/128. Their rounding adds
# $\mathbf E\, \hat t^2 / (12 \cdot 128^2)$ to an error of $4^{-R}\, \mathbf E\, t^2$, or
#
# $$ \frac{4^R}{24 \ln 2 \cdot 128^2} \text{ bits}: \quad 0.0009 \text{ at 4 bits.} \tag{3.11} $$
#
# With the MMSE feedback (2.7) in full no gains are needed.
#
# **Scales of the transform.** Exponents rounded to 1/16 octave make $d_j \alpha_j^2$ in (2.4) unequal: their
# logarithms are uniform in $\pm\frac{\ln 2}{16}$, with variance $v = (\ln 2)^2/768$, and
#
# $$ \tfrac12 \log(\mathrm{AM}/\mathrm{GM}) \approx \frac v{4 \ln 2} = \frac{\ln 2}{3072} = 0.0002 \text{ bit.}
#    \tag{3.12} $$
#
# **In all** a column costs 5 or 6 bits and a file some 220 bytes. That is 0.04 bit a weight at 256 × 256, much at
# 64 × 64 (share files there), and nothing at the sizes of real layers.


# %%
def class_cost(rows: int, width: float) -> float:
    """Bits per weight for classes of `width` octaves, up to a constant."""
    return width**2 * math.log(2) / 12 + math.log2(1 / width) / rows


for rows in (200, 400, 800, 3200, 12800):
    best = math.sqrt(6 / rows) / math.log(2)
    assert class_cost(rows, best) <= min(class_cost(rows, 1.01 * best), class_cost(rows, best / 1.01))
    assert class_cost(rows, 1 / 8) - class_cost(rows, best) < 0.0023
assert round(math.sqrt(6 / 800) / math.log(2), 3) == 0.125

for scale in (0.5, 1.0, 2.0, 8.0):
    t = scale * rng.standard_normal(200_000)
    found = t @ np.rint(t) / np.sum(np.rint(t) ** 2)
    predicted = expected_gain(int(scale_class(np.array([scale]))[0])) / 128
    assert abs(found - predicted) < 0.01
    assert abs(predicted - 1 / (1 + 1 / (12 * scale**2))) < (0.005 if scale >= 1 else 0.1)
assert round(4.0**4 / (24 * math.log(2) * 128**2), 4) == 0.0009
octaves = rng.uniform(-1 / 32, 1 / 32, 100_000)
assert abs(0.5 * (math.log2(np.mean(4.0**octaves)) - np.mean(np.log2(4.0**octaves))) - math.log(2) / 3072) < 1e-5


def adaptive(codes: np.ndarray) -> float:
    """Bits per code if every column learns its own histogram: Dirichlet(½) over its range, whose ends take 16 bits."""
    total = 0.0
    for column in codes.T:
        counts = np.bincount(column - column.min())
        size = len(counts)
        learned = gammaln(len(column) + size / 2) - gammaln(size / 2) - np.sum(gammaln(counts + 0.5) - gammaln(0.5))
        total += learned / math.log(2) + 16
    return total / codes.size


# Adaptive histograms cost more than the classes on Gaussian weights and on the matrices of a real model; they would pay
# for independent heavy tails, which the row and column factors of those matrices explain away.
stored = load_file(Path(lq.__file__).parent / "llm" / "embedded" / "model.safetensors")
real_layers = [w.double().numpy() for name, w in stored.items() if ".layers.0." in name and w.ndim == 2]
for weight in (rng.standard_normal((1024, 64)), *real_layers):
    layer = lq.at_rate(3.0, lq.recipes.watersic, weight, np.eye(weight.shape[1]))
    assert layer.rate < adaptive(layer.codes)
layer = lq.at_rate(3.0, lq.recipes.watersic, rng.standard_t(4, (1024, 64)), np.eye(64))
assert layer.rate > adaptive(layer.codes) + 0.015

sizes, side = np.array([32, 64, 128, 256, 512]), []
for size in sizes:
    basis = np.linalg.qr(rng.standard_normal((size, size)))[0]
    sigma = (basis * np.exp(rng.standard_normal(size))) @ basis.T
    scheme = lq.recipes.watersic(0.3, mmse=1.0, shrink=False, sweeps=0)
    layer = lq.quantize(rng.standard_normal((size, size)), sigma, scheme)
    streams = layer.coder.encode(layer.codes)[3]
    side.append(8 * layer.nbytes - 8 * sum(map(len, streams)))
known = np.rint(8 * np.log2(layer.transform.scale)).astype(np.int64)
assert bits(TwoWay().encode(layer.codes, known)[2]) < 0.5 * bits(TwoWay().encode(layer.codes)[2])
slopes = np.diff(side) / np.diff(sizes)
assert np.all((slopes > 0) & (slopes < 7))  # grids of scales and classes are as coarse as is cheapest
assert 0.03 < side[3] / sizes[3] ** 2 < 0.05

# %% [markdown]
# ## 3.5 Interleaved streams
#
# Scalar and trellis codes are coded so that decoding is as fast as memory nearly is. A state $x$ of 32 bits holds the
# symbols as digits of mixed bases: with $f$ of $M = 2^K$ slots, the first of them $c$, a symbol makes $x$ into
#
# $$ x' = M \lfloor x / f \rfloor + c + (x \bmod f) , \tag{3.13} $$
#
# after the last 16 bits have gone to a stream of words wherever $x' \ge 2^{32}$ would follow. A decoder sees the slot
# $x' \bmod M$, undoes (3.13), and takes a word where $x < 2^{16}$. One state is a chain of dependent steps, so $L$ of
# them take turns and share the words.
#
# **Slots.** With $x = f (q + v)$ and $x' = M (q + u)$ the symbol takes $\log\frac{q + u}{q + v}$ more than
# $\log\frac Mf$. States have a density $\propto 1 / x$, so $v$ is below $\frac12$ on average,
# $\mathbf E\, v = \frac12 - \frac1{12 q}$, and $u = (c + f v) / M$ is uniform but for that share,
# $\mathbf E\, u = \frac12 - \frac1{12 q} \sum p_s^2$. With $\log q$ uniform in 16 octaves from $2^{16 - K}$ on,
# the mean of $(u - v) / q$ is
#
# $$ \frac{1 - \sum p_s^2}{12 \ln 2}\, \mathbf E \frac1{q^2}
#    = \left(1 - \sum p_s^2\right) \frac{4^{K - 16}}{384 \ln^2 2} \text{ bits a symbol.} \tag{3.14} $$
#
# A table, on the other hand, loses $2^{-K} / \ln 2$ by the slot of an escape that is hardly ever used, and as much by
# symbols of less than a slot. The sum is least for $K = 13$, at all rates: 0.0003 bit. Tables of more slots would want
# longer states.
#
# **Tails.** What has less than half a slot escapes: a slot of the escape, a sign, and the distance in Elias' gamma
# code, $2 \lfloor\log d\rfloor + 1$ bits. Behind $3 s$ a Gaussian falls like $e^{-3 d / s}$, and a code of its own
# would take hardly less. But many integers of a slot or two are badly rounded. If the last bit is stored as it is, two
# integers share a symbol. The logarithms of their probabilities differ by $z / s^2$, which costs
# $\frac1{8 s^2 \ln 2}$; that the pair's mean lies a quarter of a step off costs as much. Both together,
#
# $$ \frac{1}{4 s^2 \ln 2} \text{ bits a symbol,} \tag{3.15} $$
#
# are less than what slots save from $s = 25$ on.
#
# **Lanes.** A state begins at $2^{16}$ and ends below $2^{32}$, on average (of the logarithm) at $2^{24}$, but is
# stored in 32 bits: a lane costs 24 bits. One for each 65536 symbols costs 0.0004 bit. A stream with a single lane
# begins it at 1, as nobody else takes its words: it may stay below $2^{16}$ until it has given the first. It pays 8.


# %%
def rounded_states(slots: np.ndarray, symbols: np.ndarray, bits: int) -> float:
    """Bits that one state of 32 bits takes for symbols, without where it begins and ends."""
    first, x, words = np.cumsum(slots) - slots, 1 << 24, 0
    frequencies, starts = slots.tolist(), first.tolist()
    begin = math.log2(x)
    for symbol in symbols.tolist():
        f = frequencies[symbol]
        if x >= f << (32 - bits):
            x, words = x >> 16, words + 1
        x = (x // f << bits) + x % f + starts[symbol]
    return 16 * words + math.log2(x) - begin


losses = {}
for bits_of_slots in (12, 13, 14):
    probabilities = gaussian(np.array([1.5]), 6)[0]
    slots = np.maximum(np.rint(probabilities * 2**bits_of_slots), 1).astype(np.int64)
    slots[6] += 2**bits_of_slots - slots.sum()
    symbols = rng.choice(13, 400_000, p=slots / slots.sum())
    ideal = float(np.sum(bits_of_slots - np.log2(slots[symbols])))
    states = (1 - np.sum((slots / slots.sum()) ** 2)) * 4.0 ** (bits_of_slots - 16) / (384 * math.log(2) ** 2)
    found = (rounded_states(slots, symbols, bits_of_slots) - ideal) / len(symbols)
    assert abs(found - states) < 8e-5  # three standard errors
    losses[bits_of_slots] = 2.0**-bits_of_slots / math.log(2) + 4.0 ** (bits_of_slots - 16) / (384 * math.log(2) ** 2)
assert min(losses, key=lambda k: losses[k]) == 13
assert losses[13] < 3e-4


def slots_lose(scale_class: int, low: int) -> float:
    """Bits of a code in its table without `low` bits, and of those, above the entropy; all but (3.14)."""
    width = float(2 ** ((scale_class - 1) / 8 - 3))
    p = gaussian(np.array([width]), math.ceil(9 * width))[0]
    z = np.arange(len(p)) - len(p) // 2
    least, slots = slot_counts(gaussian_counts(scale_class - 8 * low), -limit(scale_class - 8 * low))
    m, most = z >> low, least + len(slots) - 2
    far = np.maximum(least - m, m - most)
    rest = np.where(far > 0, 2 + 2 * np.floor(np.log2(np.maximum(far, 1))), 0) + low
    own = slots[np.where(far > 0, -1, np.clip(m - least, 0, len(slots) - 2))]
    return float(np.sum(p * (SLOT_BITS - np.log2(own) + rest + np.log2(np.maximum(p, 1e-300)))))


lost = {k: [slots_lose(k, low) for low in (0, 1)] for k in (25, 41, 49, 57, 61, 63, 65, 73)}
assert all((plain < stored) == (k <= WIDEST) for k, (plain, stored) in lost.items())
assert abs(lost[49][1] - slots_lose(41, 0) - 1 / (4 * 2.0 ** (2 * 3) * math.log(2))) < 1e-4  # (3.15)
assert lost[41][0] < 1e-4
assert max(slots_lose(k, int(low_bits(k))) for k in range(25, 79)) < 1.25e-3

figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13, 4), layout="constrained")
left.plot(excess.keys(), excess.values(), "o-")
left.set(xlabel="entropy (bits)", ylabel="bits above it", title="3.1: Huffman codes", ylim=0)
for rate, colour in ((2, "tab:orange"), (4, "tab:blue")):
    middle.plot(spreads, prices[rate], color=colour, label=f"(3.4), {rate} bits")
    middle.plot(spreads, real[rate], "o", color=colour)
middle.plot(spreads, ceiling, "k--", linewidth=1, label="(3.5)")
middle.set(
    ylim=(-0.02, 0.8), xlabel="spread (deviation of ln s²)", ylabel="bits", title="3.2: one histogram; dots: bytes"
)
middle.legend()
right.loglog(sizes, np.array(side) / sizes**2, "o-", base=2)
right.set(xlabel="rows = columns", ylabel="bits per weight", title="3.4: all that is not codes")
plt.close(figure)
figure
