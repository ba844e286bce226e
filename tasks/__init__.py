"""Tasks: lm-eval files and the few of our own; `nano` is the built-in world."""
