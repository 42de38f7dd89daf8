"""From files to patches: checks, the working grid, and what the annotated objects tell about them."""
