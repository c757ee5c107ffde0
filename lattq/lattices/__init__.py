"""Lattices with known cells: nearest points, constants, and what a Gaussian on a lattice costs in bits."""

from lattq.lattices.catalogue import BW16, E8, A, A_dual, D, D_dual, Leech24, Z
from lattq.lattices.coder import EntropyCodedLattice
from lattq.lattices.lattice import Lattice
from lattq.lattices.measure import Estimate, HasNearest, measure_gap, measure_nsm
from lattq.lattices.theta import entropy, log_partition, mean_norm, scale_of_norm

__all__ = [
    "BW16",
    "E8",
    "A",
    "A_dual",
    "D",
    "D_dual",
    "EntropyCodedLattice",
    "Estimate",
    "HasNearest",
    "Lattice",
    "Leech24",
    "Z",
    "entropy",
    "log_partition",
    "mean_norm",
    "measure_gap",
    "measure_nsm",
    "scale_of_norm",
]
