"""Files in and out: splats, checkpoints, images and videos. All are written atomically."""
