"""A descriptor, a backend, a sampler and a scheduler for bdqm-tune."""
