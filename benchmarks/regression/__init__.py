"""Regression and equations beside their peers."""
