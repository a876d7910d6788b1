"""A Rollout as an object in Kubernetes: its definition (CRD), what it requests, and what its status shows. Pure."""

GROUP, VERSION, PLURAL, KIND = "segue.dev", "v1alpha1", "rollouts", "Rollout"
RESOURCE = f"{PLURAL}.{GROUP}/{VERSION}"
FINALIZER = "segue.dev/rollout"
MEMO = "segueObject"
"""The workflow's memo that names the object which started it."""
RETRY = "segue.dev/retry"
"""The annotation whose new value starts a rollout again that did not complete."""
