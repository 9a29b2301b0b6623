"""The bundled models: one folder each, with `recipe.py` (read by `modelkit`), the training code and the weights."""
