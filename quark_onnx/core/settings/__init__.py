"""What a user may ask for: configuration, presets, targets, options. `core` itself never looks here."""
