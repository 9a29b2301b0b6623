"""Handwritten digits: the bundled model, made from scikit-learn's scans."""
