"""AdaRound, under AIMET's path."""
