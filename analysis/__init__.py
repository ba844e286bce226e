"""Reads the store; writes tables, plots and pages."""
