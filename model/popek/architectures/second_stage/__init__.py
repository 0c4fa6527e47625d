"""The second stage of translation as what keeps a monitor's storage: EPT, nested paging, and shadow paging."""

from .attachments import devices
from .shadow import shadow_devices

DEVICES = {"x86-memory": devices, "x86-shadow": shadow_devices}
