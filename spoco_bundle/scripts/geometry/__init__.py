"""Voxels, distances and shapes: what several stages compute with."""
