"""From interactions to samples, and from samples to a trained model."""
