"""Databases: where they are, and what batchkit asks of them."""
