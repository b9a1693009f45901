"""Rivals of Deep Retrieval, measured on the same users, and what they need."""
