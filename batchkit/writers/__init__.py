"""Where results go: one module per kind, `base` is the seam."""
