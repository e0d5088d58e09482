"""Strategies: rules by which splats are born, split, relocated and removed."""
