"""The second moment of the Leech lattice: vectors uniform in a cube that is made of whole cells.

    python benchmarks/leech_moment.py 1 15000000

prints mean and standard error for a seed and a number of vectors; those of seeds 1 and 2 together are the constant of
`lattq.lattices.Leech24`. In integer coordinates 8 e_i is a lattice point, so numbers uniform in [0, 8) are uniform
modulo the lattice. They are multiples of 2^-21, exact in float32, as are their distances but for the last bit.
"""

import json
import sys

import numpy as np

from lattq.lattices import Leech24

BATCH = 1 << 17


def main(seed: int, count: int) -> None:
    """Draw, decode, print."""
    n = Leech24.dimension
    rng = np.random.default_rng([seed, n])
    means, squares, batches = 0.0, 0.0, -(-count // BATCH)
    for _ in range(batches):
        x = rng.random((BATCH, n), dtype=np.float32) * np.float32(8)
        error = x - Leech24.nearest_integer(x).astype(np.float32)
        moment = np.einsum("ij,ij->i", error, error).astype(np.float64) / (n * Leech24.integer_scale**2)
        means += float(moment.mean()) / batches
        squares += float(np.mean(np.square(moment - 0.066))) / batches
    variance = squares - (means - 0.066) ** 2
    error = (variance / (batches * BATCH)) ** 0.5
    print(json.dumps({"seed": seed, "vectors": batches * BATCH, "mean": means, "standard_error": error}))


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
