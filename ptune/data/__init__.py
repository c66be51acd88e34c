"""Data modules, one file a task format; the rows they read, the cache and the loaders."""
