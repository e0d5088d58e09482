"""Benchmarks: `python -m benchmarks.render.raster`, for example."""
