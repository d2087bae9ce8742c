"""Patients: digital ones made on the spot, and folders of real ones."""

from labkit.data.case import Case

__all__ = ["Case"]
