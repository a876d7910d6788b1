"""The only code that talks to a cluster. Thin activities over levers, gates and one shared watch a namespace."""
