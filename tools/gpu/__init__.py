"""A run of all checks on a GPU, and its report."""
