"""Deep Retrieval for people who do not run Spark: fit, recommend, explain, save and load in one process."""

from dr_core.api.deep_retrieval import DeepRetrieval, Recommendations, VisitedPath

__all__ = ["DeepRetrieval", "Recommendations", "VisitedPath"]
