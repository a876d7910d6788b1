"""The controller: rolls Rollout objects of a cluster by the workflows in Temporal. ``segue controller`` runs it."""
