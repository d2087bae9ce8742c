"""A class: what is downloaded and handed in, feedback, and marks for Canvas, Moodle and Gradescope."""
