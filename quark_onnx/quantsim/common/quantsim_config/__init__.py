"""Runtime configurations, under AIMET's path."""
