"""Scripts that compare the trials of a study, test the best one and draw figures, from what the package recorded."""
