"""Coloured shapes: the bundled detector, made from scenes that it draws itself."""
