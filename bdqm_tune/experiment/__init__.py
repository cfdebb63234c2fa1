"""Module path that models registered before version 0.2 name; forwards to `models`."""
