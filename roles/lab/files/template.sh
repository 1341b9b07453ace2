#!/bin/sh
# Called by mmdebstrap with the root of a lab's template: what makes it a host that boots under systemd-nspawn.
# LAB_POOL: packages that hosts can install; LAB_KERNEL: of the machine.
set -eu
root=$1
here=$(dirname "$0")

# what hosts can install without a network: a repository of files
pool=$root/var/lib/lab-packages
mkdir -p "$pool"
# shellcheck disable=SC2086 # one word a package
APT_CONFIG=$MMDEBSTRAP_APT_CONFIG apt-get --quiet --quiet --yes --no-install-recommends --download-only install $LAB_POOL
mv "$root"/var/cache/apt/archives/*.deb "$pool"
for deb in "$pool"/*.deb; do
  dpkg-deb --field "$deb"
  printf 'Filename: ./%s\nSize: %s\nSHA256: %s\n\n' \
    "$(basename "$deb")" "$(stat --format=%s "$deb")" "$(sha256sum "$deb" | cut --delimiter=' ' --fields=1)"
done > "$pool/Packages"
rm -rf "$root"/etc/apt/sources.list "$root"/etc/apt/sources.list.d/* "$root"/var/lib/apt/lists/*
echo 'deb [trusted=yes] file:/var/lib/lab-packages ./' > "$root/etc/apt/sources.list.d/lab.list"
mkdir -p "$root/var/lib/apt/lists/partial"
chroot "$root" apt-get --quiet --quiet update

: > "$root/etc/resolv.conf" # the builder's: every name would be waited for

# modprobe says yes to what the kernel has built in
mkdir -p "$root/lib/modules/$LAB_KERNEL"
if [ -e "/lib/modules/$LAB_KERNEL/modules.builtin" ]; then
  cp "/lib/modules/$LAB_KERNEL/modules.builtin" "$root/lib/modules/$LAB_KERNEL/"
else
  printf 'kernel/%s.ko\n' fs/overlayfs/overlay net/bridge/br_netfilter net/netfilter/nf_conntrack \
    drivers/net/vxlan/vxlan > "$root/lib/modules/$LAB_KERNEL/modules.builtin"
fi
: > "$root/lib/modules/$LAB_KERNEL/modules.order"
chroot "$root" depmod "$LAB_KERNEL"

install -D --mode=755 "$here/lab-prepare" "$root/usr/local/sbin/lab-prepare"
install -D --mode=644 "$here/lab-prepare.service" "$root/etc/systemd/system/lab-prepare.service"
systemctl --quiet --root="$root" enable lab-prepare.service
systemctl --quiet --root="$root" mask dev-hugepages.mount sys-kernel-debug.mount sys-kernel-tracing.mount \
  proc-sys-fs-binfmt_misc.automount sys-fs-fuse-connections.mount console-getty.service e2scrub_reap.service \
  apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer
