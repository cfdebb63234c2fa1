"""Where models that were registered by a version before 0.2 look for what reads them."""
