"""Widgets for notebooks: thin shells over labkit.plots, one explorer per file."""
