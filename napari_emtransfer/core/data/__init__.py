"""Micrographs, labels, tiles, splits, and the project folder that holds them."""
