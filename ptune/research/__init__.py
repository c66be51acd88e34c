"""Many runs: the cells of a grid, and the processes that work on them."""
