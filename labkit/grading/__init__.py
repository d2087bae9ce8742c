"""Grading: nbval runs the notebook in a jail; the verdict is computed outside, from returned values."""
