"""Widgets for notebooks: thin shells over labkit.explore.plots, one explorer per file."""
