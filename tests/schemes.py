"""Schemes that together use every part, for the laws that hold for all of them."""

import numpy as np

from lattq import recipes
from lattq.bounds.formats import NF4, NumberFormat, float_format, int_format
from lattq.coding import Pooled, TwoWay
from lattq.feedback import Cholesky, OpenLoop
from lattq.lattices import E8, A, D, Leech24
from lattq.lattices.coder import EntropyCodedLattice
from lattq.least_squares.alternate import PARAMETERS
from lattq.quantizers import AbsMax, Bitshift, Codebook, Format, Lattice, MinMax, Nested, Trellis, Uniform
from lattq.scheme import Scheme
from lattq.transforms import Balanced, Diagonal, Fixed, then
from lattq.transforms.designs import Sort
from lattq.transforms.maps import Permutation
from lattq.trellis import EntropyCodedTrellis

FIXED_RATE = {
    "rtn": recipes.rtn(4, group=8),
    "rtn ternary": recipes.rtn(3, group=None),
    "rtn min-max": recipes.rtn(16, symmetric=False, group=3),
    "gptq": recipes.gptq(8, group=5),
    "gptq act-order": recipes.gptq(16, group=None, order="sorted", symmetric=False),
    "permuted groups": Scheme(transform=Sort(), quantizer=AbsMax(256, 4)),
    "seven levels": Scheme(quantizer=Uniform(0.3, levels=7)),
    "step of a column": Scheme(quantizer=MinMax(16, 1, shared=True), feedback=Cholesky("pivoted")),
    "bitshift": Scheme(quantizer=Bitshift(2, memory=6, block=8)),
    "bitshift of rows": Scheme(quantizer=Bitshift(3, memory=4, code="1mad", group=3, shared=False, shrink=True)),
    "mxfp4": recipes.block_format("mxfp4"),
    "mxfp8": recipes.block_format("mxfp8-e5m2", feedback=Cholesky("reversed", 0.01)),
    "nvfp4": recipes.block_format("nvfp4"),
    "nf4 in threes": Scheme(quantizer=Format(NF4, 3, shrink=True)),
    "float of a column": Scheme(quantizer=Format(float_format(3, 1), 1), feedback=Cholesky("pivoted")),
    "format of rows": Scheme(quantizer=Format(int_format(3, symmetric=False), None, "e8m0")),
    "format of one's own": Scheme(quantizer=Format(NumberFormat("thirds", np.array([-1.0, -0.3, 0.0, 1.0]), 2), 5)),
    "palette": recipes.palettize(2, rows=2, entry_bits=4),
    "squeezellm": recipes.squeezellm(2, outliers=0.1),
    "codebook": Scheme(quantizer=Codebook(5, group=4, rows=3, scale=2, shrink=True), refit=PARAMETERS),
    "codebook in rounds": recipes.gptvq(2, dimension=1, down=True),
    "codebook published": recipes.gptvq_published(3, dimension=1),
    "refitted": Scheme(quantizer=MinMax(2, 8, shrink=True), refit=PARAMETERS),
}


def entropy_coded(step: float) -> dict[str, Scheme]:
    """Schemes with one step."""
    return {
        "huffman_gptq": recipes.huffman_gptq(step),
        "huffman_gptq shrunk": recipes.huffman_gptq(step, shrink=True, order="pivoted", damping=0.01),
        "watersic": recipes.watersic(step),
        "watersic plain": recipes.watersic(step, mmse=0.0, sweeps=0, shrink=False, order="natural"),
        "watersic published": recipes.watersic_published(step),
        "watersic dithered": recipes.watersic(step, quantizer=Uniform(dither=3)),
        "watersic offset": recipes.watersic(step, quantizer=Uniform(offset=0.5)),
        "trellis": recipes.watersic(step, quantizer=Trellis(8, segment=7)),
        "trellis unbiased": recipes.UNBIASED(step, quantizer=Trellis(256, shrink=True), refit=PARAMETERS),
        "trellis in blocks": recipes.watersic(step, quantizer=Trellis(4), coder=EntropyCodedTrellis(4, block=20)),
        "lattice": recipes.watersic(step, quantizer=Lattice(E8)),
        "lattice unbiased": recipes.UNBIASED(step, quantizer=Lattice(D(4), shrink=True), refit=PARAMETERS),
        "lattice in few rows": recipes.watersic(step, quantizer=Lattice(Leech24), sweeps=1),
        "lattice in blocks": Scheme(quantizer=Lattice(E8, step), coder=EntropyCodedLattice("E8", block=16)),
        "lattice two-way": Scheme(quantizer=Lattice(D(2), step), coder=TwoWay()),
        "watersic pooled": recipes.watersic(step, coder=Pooled()),
        "ecvq": recipes.ecvq(step, size=16, dimension=1, sweeps=1),
        "small blocks": Scheme(quantizer=Uniform(step), coder=TwoWay(block=16), feedback=Cholesky("sorted")),
    }


def for_columns(columns: int) -> dict[str, Scheme]:
    """Schemes whose transform, or block of columns, belongs to a number of columns."""
    diagonal = Diagonal(1.0 + np.arange(columns) % 3)
    permutation = Permutation(np.arange(columns)[::-1].copy())
    width = max(d for d in range(1, 9) if columns % d == 0)
    return {
        "vectors": recipes.gptvq(1, dimension=width),
        "vectors of runs": recipes.pq(1, dimension=width),
        "folded": Scheme(transform=Fixed(diagonal, folded=True), quantizer=Uniform(0.2)),
        "chained": Scheme(transform=then(Fixed(permutation), Fixed(diagonal)), quantizer=Uniform(0.2)),
        "balanced": Scheme(transform=Balanced(block=width), quantizer=AbsMax(8, 4)),
        "nested": Scheme(feedback=Cholesky(block=columns), quantizer=Nested()),
        "nested words": Scheme(quantizer=Nested(D(4), 8, 2, "first", "packed"), feedback=OpenLoop(columns)),
        "nested plane": Scheme(
            quantizer=Nested(A(2), 5, (0.4, 0.8), index="raw", shrink=True), feedback=OpenLoop(columns)
        ),
    }


def every_scheme(columns: int, step: float = 0.3) -> dict[str, Scheme]:
    return {**FIXED_RATE, **entropy_coded(step), **for_columns(columns)}


NAMES = list(every_scheme(1))
