"""Retrieval: encode, search the structure by price or by beam, take the paths' items, rank them; for one user or a block of users."""
