"""What is run: day one, each day after, and what they share; gates, retention, the removal of a user."""
