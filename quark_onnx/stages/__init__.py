"""The steps of the pipeline: values in, values out. A stage never imports another stage."""
