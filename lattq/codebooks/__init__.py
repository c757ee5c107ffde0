"""Codebooks: the best entries for given numbers or vectors, and what they cost."""

from lattq.codebooks.clustering import Clustering
from lattq.codebooks.kmeans_1d import curve, kmeans_1d

__all__ = ["Clustering", "curve", "kmeans_1d"]
