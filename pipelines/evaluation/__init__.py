"""What is measured of a run, against which controls, and how it becomes results."""
