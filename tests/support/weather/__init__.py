"""Random faults on the real servers: a seed makes rollouts and their weather, and an independent judge judges them."""
