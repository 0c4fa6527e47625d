"""IBM System/360 Model 67 and System/370."""

from .channel import devices
from .model67 import build as build_model67
from .s370 import build as build_s370
from .virtual_real import devices as virtual_real

MACHINES = {"s360-67": build_model67, "s370": build_s370}
DEVICES = {"s370": devices, "s370-virtual-real": virtual_real}
