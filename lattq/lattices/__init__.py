"""Lattices with known cells: nearest points, constants, and what a Gaussian on a lattice costs in bits."""

from lattq.lattices.catalogue import BW16, E8, A, A_dual, D, D_dual, Leech24, Z
from lattq.lattices.hierarchical import HierarchicalCode
from lattq.lattices.lattice import Lattice
from lattq.lattices.measure import measure_gap, measure_nsm
from lattq.lattices.nested import NestedCode
from lattq.lattices.scales import best_scales
from lattq.lattices.voronoi import VoronoiCode

__all__ = [
    "BW16",
    "E8",
    "A",
    "A_dual",
    "D",
    "D_dual",
    "HierarchicalCode",
    "Lattice",
    "Leech24",
    "NestedCode",
    "VoronoiCode",
    "Z",
    "best_scales",
    "measure_gap",
    "measure_nsm",
]
