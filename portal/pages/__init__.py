"""HTML routes, one module a face."""
