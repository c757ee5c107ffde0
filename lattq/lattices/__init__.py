"""Lattices with known cells: nearest points, constants, and what a Gaussian on a lattice costs in bits."""

from lattq.lattices.catalogue import A, A_dual, BW16, D, D_dual, E8, Leech24, Z
from lattq.lattices.lattice import Lattice

__all__ = ["A", "A_dual", "BW16", "D", "D_dual", "E8", "Lattice", "Leech24", "Z"]
