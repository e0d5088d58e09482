"""Transports: rules by which splats move between births and deaths."""
