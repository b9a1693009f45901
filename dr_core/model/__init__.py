"""User encoder, structure model p(c|x), reranker and objective."""
