"""Random problems for each rule of differentiation, by operator: a function of a source of chance."""
