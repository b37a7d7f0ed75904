"""What runs a model for its target: one file for each runtime, and the table that finds it by the name in the target.

A runtime is a value (`runtime.Runtime`): it loads a model, runs it, tells which nodes it executes, and times two models
in turn. Another one is a file here and a line in `known.RUNTIMES`.
"""
