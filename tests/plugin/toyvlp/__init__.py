"""An architecture in a package of its own."""
