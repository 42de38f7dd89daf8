"""Synthetic microscopy with complete truth: what the shipped weights are trained on."""
