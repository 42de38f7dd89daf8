"""From patches to embeddings: the network, its weights, and how it runs over a whole image."""
