"""One run of a command: its command line, directory, loggers, callbacks and result."""
