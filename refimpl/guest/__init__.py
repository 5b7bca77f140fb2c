"""The guest that proves what happened to it: a kernel, one static program, nothing else.

It sends numbered heartbeats, fills and checks memory, writes numbered disk blocks, and says so line by line; by TCP it
sends back what it gets. The observers in `refimpl.meter` read that. `image.build()` makes kernel and initramfs,
`GuestParameters.command_line()` the rest. It boots to its first heartbeat in about two seconds
under TCG with 96 to 256 MiB.

What the virtual machine has to have (under plain QEMU; each has its counterpart in libvirt):

- machine `pc`, which the libvirt backend gives it (`q35` does as well: to the first heartbeat 1.75 s against 2.06 s on
  `pc`, median of five pairs), any CPU model (`qemu64` under TCG), one virtual CPU is enough;
- memory: the working set and about 64 MiB more, not below 96 MiB;
- the image's kernel and initramfs booted directly, with the parameters' command line;
- first ISA serial port (ttyS0): the kernel's console, for people, normally empty;
- second ISA serial port (ttyS1): the **line channel**, to a file of its own on each host, opened for *append* and
  written by QEMU itself: libvirt's own log daemon in between (`stdio_handler = "logd"`) must be off, so that the file
  is complete as soon as QEMU has stopped. Without this port the guest switches itself off and says so on ttyS0;
- the first virtio disk (/dev/vda), raw, at least `disk_blocks` times 4 KiB, cache mode none or writethrough in a
  shared lab; may be left out when `disk_period_ms` is 0. The guest overwrites it from block 0 on;
- one virtio network card (may be left out when the parameters hold no address), no option ROM needed;
- no memory balloon, no random number device, no USB, no graphics needed.

The guest ends itself only when told to (command `off`), or when it cannot work at all. A kernel panic is told to
a panic device, if there is one, and the system below then ends or restarts the VM as it is told to; without one the
guest restarts after a second: the observers see another boot id.
"""

from refimpl.guest.image import GuestImage, build, cache_directory
from refimpl.guest.kernel import GuestBuildError
from refimpl.guest.parameters import GuestParameters, least_memory_mib

__all__ = ["GuestBuildError", "GuestImage", "GuestParameters", "build", "cache_directory", "least_memory_mib"]
