"""One layer, tuned: data of its inputs and outputs, its weight, its bias, and the ranges around it."""
