#!/bin/busybox sh
# First program of the machine, in the initramfs: loads modules, makes the root directory and goes over into it.
# It mounts nothing in the new root; boot.sh does, which is the same for every kind of root.
# `root=` on the kernel's command line means something else, so the kind comes as the word machine.root=.
fail() {
    echo "machine: $*" >/dev/console
    poweroff -f
}

for module in /modules/*; do
    [ -e "$module" ] || continue
    insmod "$module" || fail "cannot load ${module##*/}"
done

chmod 755 /
mkdir -p /new
mount -t proc proc /proc
case " $(cat /proc/cmdline) " in
*" machine.root=host "*)
    mkdir -p /host /upper
    mount -t virtiofs -o ro host /host || fail "cannot mount the host's root directory: is virtiofs in this kernel?"
    mount -t tmpfs -o mode=755 upper /upper && mkdir /upper/files /upper/work || fail "cannot make a writable layer"
    mount -t overlay -o "lowerdir=/payload:/host,upperdir=/upper/files,workdir=/upper/work" root /new ||
        fail "cannot lay a writable layer over the host's root directory"
    # The writable layer alone: all that was changed since the boot, and nothing else.
    mkdir -p /new/.machine/upper && mount --bind /upper/files /new/.machine/upper &&
        mount -o remount,ro,bind /new/.machine/upper || fail "cannot show the writable layer"
    ;;
*)
    # A mount of its own, so that pivot_root and mount namespaces work in it as on any machine.
    mount --bind / /new || fail "cannot bind the root directory"
    ;;
esac
umount /proc

cd /new || fail "cannot enter the root directory"
mount --move . / && exec chroot . /.machine/busybox sh /.machine/boot.sh
fail "cannot change the root directory"
