"""Allocators: which layers keep how much of a budget, one file per rule."""
