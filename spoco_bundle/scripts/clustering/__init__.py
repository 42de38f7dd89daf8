"""From embeddings to instances, and how sure the network is of each."""

from .methods import cluster_embeddings

__all__ = ["cluster_embeddings"]
