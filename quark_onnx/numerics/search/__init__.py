"""What a search stands on: how far a row of changes holds, which ones pay, and how much of a score is chance."""
