"""Other people's ways to fit a function, each at a stated budget."""
