"""Patients as arrays: one case, the readers of folders, slices for a network."""
