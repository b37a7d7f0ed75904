"""What a search stands on: how far a row of changes holds, which are worth their cost, how much of a score is chance."""
