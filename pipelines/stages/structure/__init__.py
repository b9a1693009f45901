"""From a trained model to scores, paths and the index."""
