"""Lattices with known cells: nearest points, constants, and what a Gaussian on a lattice costs in bits."""

from lattq.lattices.catalogue import BW16, E8, A, A_dual, D, D_dual, Leech24, Z
from lattq.lattices.coder import EntropyCodedLattice
from lattq.lattices.hierarchical import HierarchicalCode
from lattq.lattices.lattice import Lattice
from lattq.lattices.measure import Estimate, HasNearest, measure_gap, measure_nsm
from lattq.lattices.nested import NESTQUANT_SCALES, NestedCode, NestedFigures, cell_dither
from lattq.lattices.packing import NestedCoder
from lattq.lattices.products import integer_product, small_leaders
from lattq.lattices.scales import best_scales
from lattq.lattices.theta import entropy, log_partition, mean_norm, scale_of_norm
from lattq.lattices.voronoi import VoronoiCode

__all__ = [
    "BW16",
    "E8",
    "NESTQUANT_SCALES",
    "A",
    "A_dual",
    "D",
    "D_dual",
    "EntropyCodedLattice",
    "Estimate",
    "HasNearest",
    "HierarchicalCode",
    "Lattice",
    "Leech24",
    "NestedCode",
    "NestedCoder",
    "NestedFigures",
    "VoronoiCode",
    "Z",
    "best_scales",
    "cell_dither",
    "entropy",
    "integer_product",
    "log_partition",
    "mean_norm",
    "measure_gap",
    "measure_nsm",
    "scale_of_norm",
    "small_leaders",
]
