"""Labelling screens of Label Studio, and the parts that they share."""
