"""Plots of runs and fits, written as image files."""
