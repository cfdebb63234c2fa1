"""Services: where the stores are."""
