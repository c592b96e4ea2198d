"""What the synthetic data set is made of: colours, backgrounds, characters, poses, drawing."""
