"""Codebooks: the best entries for given numbers or vectors, and what they cost."""

from lattq.codebooks.kmeans import kmeans, nearest
from lattq.codebooks.kmeans_1d import kmeans_1d
from lattq.codebooks.lloyd_max import GAUSSIAN, LAPLACIAN, UNIFORM, lloyd_max
from lattq.codebooks.palette import PaletteDesign
from lattq.codebooks.scales import best_scales

__all__ = [
    "GAUSSIAN",
    "LAPLACIAN",
    "UNIFORM",
    "PaletteDesign",
    "best_scales",
    "kmeans",
    "kmeans_1d",
    "lloyd_max",
    "nearest",
]
