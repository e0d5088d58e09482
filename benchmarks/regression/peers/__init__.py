"""Other methods to fit a function, each at a stated budget."""
