"""Figures: one function each, which takes axes and a table; grids of images; the style sheet."""
