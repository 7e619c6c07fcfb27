"""Ways to train, compared arm by arm and seed by seed: plans, their runs, and a page for each plan."""
