"""Restartable sources of items: one module per kind, `base` is the seam."""
