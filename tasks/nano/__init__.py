"""The built-in world: a small model with real knowledge, and the tasks that measure it."""
