"""SeqMSE, under AIMET's path."""
