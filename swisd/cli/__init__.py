"""The commands: thin, quick to start. Results go to standard output, everything else to standard error."""
