"""Road networks, towns, the ground raster and what stands beside the road."""
