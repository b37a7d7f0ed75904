"""Values: formats, plan, configuration, presets, the operator table, errors. Imports nothing but numpy."""
