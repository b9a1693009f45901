"""Deep Retrieval: the algorithms, from arrays and tensors to arrays and tensors."""
