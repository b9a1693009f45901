"""Retrieval: beam, index and reranker together, for one user or a block of users."""
