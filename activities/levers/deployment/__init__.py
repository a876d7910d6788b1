"""The lever of a Deployment: what it reads, what it writes, and in which order."""
