"""Analysis of compiled CUDA kernels, without a GPU."""
