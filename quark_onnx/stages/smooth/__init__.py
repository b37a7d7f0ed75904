"""SmoothQuant: range moves from the channels of what products read into the rows of their weights.

A site is an activation that products with constant weights read. What they read is divided by a factor per channel,
and their weights are multiplied by it: the outputs stay what they were, but for rounding. The division goes into what
makes the activation, where nobody else reads it: scale and bias of a normalization, columns of the projection of the
values of an attention, or of what a gate lets through. Elsewhere a Mul stands in front of the products, and others
read the activation as it is.
"""

from quark_onnx.stages.smooth.chosen_factors import How, Smoothed, channels_needed, left_alone, places, smooth
from quark_onnx.stages.smooth.product_sites import has_sites
from quark_onnx.stages.smooth.smoothed_model import with_products

__all__ = ["How", "Smoothed", "channels_needed", "has_sites", "left_alone", "places", "smooth", "with_products"]
