"""Holdfast as constructs of the CDK for Python: the same resources as `template.yaml`, for stacks that are written in Python.

cluster = HoldfastCluster(stack, "Holdfast", vpc=vpc, image=ecs.ContainerImage.from_asset("."), front_code=lambda_.Code.from_asset(...))
cluster.add_handlers("Orders", function)      # publishes a version and registers it
"""

from holdfast_cdk.cluster import Exposure, HoldfastCluster, Size
from holdfast_cdk.handlers import HoldfastHandlers

__all__ = ["Exposure", "HoldfastCluster", "HoldfastHandlers", "Size"]
