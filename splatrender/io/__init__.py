"""Files in and out: splats, checkpoints, pictures and videos. All are written atomically."""
