"""A synthetic data set of dancing puppets, drawn on demand, with their true masks and poses."""
