"""Animation of a picture by a camera, shown on a page on this machine."""
