"""For each operator with a rule of gradients, small models with random shapes and attributes."""

from gradient_problems import elementwise, layers, moves, normalizations

PROBLEMS = elementwise.PROBLEMS | layers.PROBLEMS | normalizations.PROBLEMS | moves.PROBLEMS
