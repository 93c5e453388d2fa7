"""The library behind the jobs: text in, checked and watermarked speech out. Knows nothing of Hydra."""
