"""A run's configuration: its sections, and how it is read."""
