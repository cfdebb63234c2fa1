"""Learning: targets, networks, batches, training, and the potential that comes out."""
