"""A device that several guests share by virtual functions with queues of their own (SR-IOV), as a generic model."""

from .functions import devices

DEVICES = {"sriov": devices}
