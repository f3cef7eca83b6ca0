"""What must hold for every input that Hypothesis can think of."""
