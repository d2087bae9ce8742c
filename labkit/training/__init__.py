"""Train a delta, predict and evaluate with it, and measure what that costs."""
