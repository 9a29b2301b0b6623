"""Handwritten digits: the bundled classifier, made from scikit-learn's scans."""
