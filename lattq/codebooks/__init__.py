"""Codebooks: the best entries for given numbers or vectors, and what they cost."""

from lattq.codebooks.clustering import Clustering
from lattq.codebooks.differentiable import SoftClustering, soft_kmeans
from lattq.codebooks.kmeans import kmeans, nearest
from lattq.codebooks.kmeans_1d import curve, kmeans_1d
from lattq.codebooks.lloyd_max import (
    GAUSSIAN,
    LAPLACIAN,
    UNIFORM,
    Density,
    ScalarQuantizer,
    lloyd_max,
    panter_dite,
)
from lattq.codebooks.palette import Palette, PaletteDesign
from lattq.codebooks.product import ProductCodebook, ResidualCodebook, fit_product, fit_residual
from lattq.codebooks.scales import ScaleFit, best_scales
from lattq.codebooks.whitened import Start

__all__ = [
    "GAUSSIAN",
    "LAPLACIAN",
    "UNIFORM",
    "Clustering",
    "Density",
    "Palette",
    "PaletteDesign",
    "ProductCodebook",
    "ResidualCodebook",
    "ScalarQuantizer",
    "ScaleFit",
    "SoftClustering",
    "Start",
    "best_scales",
    "curve",
    "fit_product",
    "fit_residual",
    "kmeans",
    "kmeans_1d",
    "lloyd_max",
    "nearest",
    "panter_dite",
    "soft_kmeans",
]
