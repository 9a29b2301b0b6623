"""Faults of real workers under a steady load, and what clients notice of them."""
