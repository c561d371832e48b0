"""Forms in which weights of each architecture are published, as data: a module an architecture, with ``FORMATS``."""
