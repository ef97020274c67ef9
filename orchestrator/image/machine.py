"""The Debian guest as a virtual machine: the one with systemd, a kernel, and Incus's agent."""

from __future__ import annotations

from dataclasses import replace

from orchestrator.image.layer import SYSTEMD

# What a throw-away guest has no use for, and a boot would wait for or start.
_MASKED = (
    "apt-daily-upgrade.timer",
    "apt-daily.timer",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty.target",
    "serial-getty@ttyS0.service",
    "systemd-networkd-wait-online.service",
    "systemd-pstore.service",
)
# Jobs run below the agent. Neither must a job that runs out of memory kill the agent, nor a restart
# of the agent the jobs.
_AGENT = "[Service]\nKillMode=process\nOOMPolicy=continue\nTasksMax=infinity\n"
_FSTAB = "LABEL=pikaci / ext4 defaults,noatime,x-systemd.growfs 0 0\n"
_REPART = "[Partition]\nType=root\n"
# Drivers of devices that QEMU does not make, or Incus does not ask it for. Not those of input: the
# power button, which `incus stop` presses, is one.
_HARDWARE = (
    "drivers/accel",
    "drivers/ata",
    "drivers/bluetooth",
    "drivers/comedi",
    "drivers/edac",
    "drivers/extcon",
    "drivers/firewire",
    "drivers/gpu",
    "drivers/hid",
    "drivers/hwmon",
    "drivers/i2c",
    "drivers/iio",
    "drivers/infiniband",
    "drivers/isdn",
    "drivers/leds",
    "drivers/media",
    "drivers/mfd",
    "drivers/mmc",
    "drivers/mtd",
    "drivers/net/ethernet",
    "drivers/net/wireless",
    "drivers/parport",
    "drivers/pcmcia",
    "drivers/platform",
    "drivers/power",
    "drivers/staging",
    "drivers/thunderbolt",
    "drivers/usb",
    "drivers/video",
    "net/bluetooth",
    "net/mac80211",
    "net/wireless",
    "sound",
)

_BEFORE = """\
mkdir -p "$1/etc/initramfs-tools/conf.d"
echo MODULES=list > "$1/etc/initramfs-tools/conf.d/pikaci"
"""
# The initrd that Debian made is not used: initrd.py says why.
_AFTER = f"""\
cd "$1"
kernel=$(basename usr/lib/modules/*)
(cd "usr/lib/modules/$kernel/kernel" && rm -rf {" ".join(_HARDWARE)})
chroot . depmod "$kernel"
rm -f boot/initrd.img* initrd.img* vmlinuz*
"""

VM = replace(
    SYSTEMD,
    alias="pikaci/vm",
    # Not the kernel for clouds: it has no 9p, by which Incus hands over the agent's keys.
    packages=(
        *SYSTEMD.packages,
        "busybox-static",
        "incus-agent",
        "kmod",
        "linux-image-amd64",
        "systemd-boot-efi",
        "systemd-repart",
        "udev",
    ),
    files={
        **(SYSTEMD.files or {}),
        "etc/fstab": _FSTAB,
        "etc/repart.d/50-root.conf": _REPART,
        "etc/systemd/system/incus-agent.service.d/pikaci.conf": _AGENT,
    },
    links={
        **(SYSTEMD.links or {}),
        **{f"etc/systemd/system/{unit}": "/dev/null" for unit in _MASKED},
    },
    machine=True,
    before=_BEFORE,
    after=_AFTER,
)
