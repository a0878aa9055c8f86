"""Training and evaluating: clips, windows drawn from them, the loop, and the figures."""
