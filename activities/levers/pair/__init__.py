"""The lever of a pair of Deployments: what it reads, what it writes, and in which order."""
