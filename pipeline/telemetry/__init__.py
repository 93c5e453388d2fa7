"""What a run says of itself: progress on the screen, figures in W&B, a record in `runs/`. Never fails a run."""
