"""The paths of the items: their space, scores, assignment, index and health."""
