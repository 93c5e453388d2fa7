"""Reports of a run: progress on the screen, figures in W&B, a record in `runs/`. Its errors never end a run."""
