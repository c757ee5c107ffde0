"""Codebooks: the best entries for given numbers or vectors, and what they cost."""

from lattq.codebooks.clustering import Clustering
from lattq.codebooks.kmeans import kmeans, nearest
from lattq.codebooks.kmeans_1d import curve, kmeans_1d
from lattq.codebooks.samples import Start

__all__ = ["Clustering", "Start", "curve", "kmeans", "kmeans_1d", "nearest"]
