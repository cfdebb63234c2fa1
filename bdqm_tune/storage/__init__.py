"""Studies of many trials: what to try, in which order, what was found."""
