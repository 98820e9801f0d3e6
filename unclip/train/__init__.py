"""Training: one loop for every stage; what a step draws is a function of (seed, step), so a resumed run is the same."""
