"""User encoder, structure model p(c|x), reranker, beam search and objective."""
