"""Values that are decided: formats, plan, operator table, records, errors. Imports nothing but numpy."""
