"""The options of the command line, and the job that they describe."""
