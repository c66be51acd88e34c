"""Many runs: the cells of grids, the trials of searches, where they run, and reports on them."""
