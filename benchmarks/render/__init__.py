"""Speed of the kernels and of training steps."""
