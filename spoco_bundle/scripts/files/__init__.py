"""Image files, label maps, weights and tables on disk: found, read, checked and written whole."""
