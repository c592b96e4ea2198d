"""The synthetic data set: colours, backgrounds, characters, poses, drawing, and clips of them."""
