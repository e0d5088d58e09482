"""CUDA kernels on the CPU: compiled against an emulated GPU, or from their PTX."""
