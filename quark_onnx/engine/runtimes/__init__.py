"""What runs a model for its target: a file or folder for each runtime, and the table that finds it by its name.

A runtime is a value (`runtime.Runtime`): it loads a model, runs it, tells which nodes it executes, and times two models
in turn. Another one is a file or folder here and a line in `known.RUNTIMES`.
"""
