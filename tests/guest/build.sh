#!/usr/bin/env bash
# Builds the real guest that the tests boot: a Debian 13 image from Debian packages, laid out and configured like the
# published generic image (partitions, loader, kernel, cloud-init, no keys, no passwords, no machine id), because what
# the tests say about the product is worth as much as this image is like the one that users get. Its initrd has only the
# drivers of QEMU's machine.
#
#   build.sh OUT_DIR     builds unless it is there already; prints the image's path (progress goes to stderr)
#   build.sh --packages  prints the Debian packages that the host must have
#
# DEBIAN_MIRROR names the mirror; without it, the one that the host's own apt uses for Debian.
# Nothing needs root or a loop device: file systems are written straight into the disk file at their offset. Without
# root the script runs again as root of a user namespace (needs a range in /etc/subuid), then the path is the same.
set -euo pipefail

release=trixie
host_packages=(mmdebstrap debian-archive-keyring qemu-utils e2fsprogs dosfstools mtools fdisk uidmap)
host_commands=(mmdebstrap qemu-img mke2fs mkfs.vfat mcopy sfdisk newuidmap)
guest_packages=(
  # kernel, init, boot loader for BIOS and UEFI
  linux-image-amd64 initramfs-tools zstd kmod systemd-sysv systemd-timesyncd udev dbus libpam-systemd
  grub-common grub-pc-bin grub-efi-amd64-bin
  # what makes it a cloud image
  cloud-init cloud-guest-utils e2fsprogs dosfstools fdisk gdisk openssh-server sudo
  # network
  netplan.io systemd-resolved libnss-resolve iproute2 iptables iputils-ping ca-certificates curl
  # what people expect at a prompt
  bash-completion less nano procps psmisc
  # a container runtime for the k3s stand-in, which has none in itself
  containerd
)
PATH=$PATH:/usr/sbin:/sbin

say() { echo "guest image: $*" >&2; }
die() { say "$*"; exit 1; }

case ${1-} in
  --packages) echo "${host_packages[@]}"; exit ;;
  '' | -*) die "usage: build.sh OUT_DIR | --packages" ;;
esac
for command in "${host_commands[@]}"; do
  command -v "$command" >/dev/null || die "$command is missing: apt-get install --no-install-recommends ${host_packages[*]}"
done

# The script is the recipe, so its hash is the key of what it made.
mkdir -p "$1"
out=$(realpath "$1")
image=$out/debian-$release-generic-$(sha256sum <"$0" | cut -c1-12).qcow2
exec 9>"$out/.guest.lock"
flock 9 # two builders at once: the second one finds the first one's image
if [[ -e $image ]]; then
  echo "$image"
  exit
fi

if ((EUID != 0)); then
  exec unshare --map-root-user --map-auto -- "$BASH" "$0" "$out" 9>&- # the new process takes the lock itself
fi

mirror=${DEBIAN_MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian' | sed -n 1p)}
[[ $mirror ]] || die "apt knows no Debian mirror here: set DEBIAN_MIRROR (or run apt-get update first)"

rm -rf --one-file-system "$out"/.guest.?????? # of a run that was killed; the lock says that nobody is at work there
work=$(mktemp -d "$out/.guest.XXXXXX")
trap 'rm -rf --one-file-system "$work"' EXIT
root=$work/root disk=$work/disk.raw
root_fs=$(</proc/sys/kernel/random/uuid)
root_part=$(</proc/sys/kernel/random/uuid)
esp_part=$(</proc/sys/kernel/random/uuid)

say "installing packages from $mirror"
started=$SECONDS
# As root of whichever namespace this is, "unshare" only adds a mount and a process namespace: nothing stays mounted.
initrd='mkdir -p "$1"/etc/initramfs-tools/conf.d "$1"/usr/share/initramfs-tools/modules.d
  echo MODULES=list >"$1"/etc/initramfs-tools/conf.d/guest
  printf "%s\n" virtio_pci virtio_blk ext4 >"$1"/usr/share/initramfs-tools/modules.d/guest'
mmdebstrap --quiet --mode=unshare --variant=minbase --include="${guest_packages[*]}" \
  --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
  --setup-hook="$initrd" "$release" "$root" "$mirror" >&2
say "packages installed ($((SECONDS - started)) s)"

# What would make two machines of one image the same, and what came from the host that built it.
: >"$root/etc/machine-id"
rm -f "$root"/etc/ssh/ssh_host_* "$root/var/lib/dbus/machine-id"
echo localhost >"$root/etc/hostname"
ln -sf ../run/systemd/resolve/stub-resolv.conf "$root/etc/resolv.conf"
# The stand-in starts it when somebody asks; a guest that nobody asks boots without it.
ln -sf /dev/null "$root/etc/systemd/system/containerd.service"
mkdir -p "$root/boot/efi"
cat >"$root/etc/fstab" <<FSTAB
PARTUUID=$root_part / ext4 rw,discard,errors=remount-ro,x-systemd.growfs 0 1
PARTUUID=$esp_part /boot/efi vfat defaults 0 0
FSTAB

# update-grub wants to look at real disks; a fixed configuration through Debian's /vmlinuz links says the same.
mkdir -p "$root/boot/grub"
cat >"$root/boot/grub/grub.cfg" <<GRUB
serial --unit=0 --speed=115200
terminal_output console serial
linux /vmlinuz root=PARTUUID=$root_part ro console=tty0 console=ttyS0,115200 consoleblank=0
initrd /initrd.img
boot
GRUB
# The loader finds the root by its UUID, not by number: other disks may be attached, and UEFI counts in its own order.
cat >"$root/tmp/early.cfg" <<GRUB
search --no-floppy --fs-uuid --set=root $root_fs
set prefix=(\$root)/boot/grub
configfile \$prefix/grub.cfg
GRUB
modules=(normal configfile search search_fs_uuid part_gpt ext2 fat linux gzio boot serial terminal)
chroot "$root" grub-mkimage -O i386-pc -p /boot/grub -c /tmp/early.cfg -o /tmp/core.img biosdisk "${modules[@]}"
chroot "$root" grub-mkimage -O x86_64-efi -p /boot/grub -c /tmp/early.cfg -o /tmp/bootx64.efi \
  efi_gop efi_uga "${modules[@]}"
mv "$root"/tmp/{core.img,bootx64.efi} "$root/usr/lib/grub/i386-pc/boot.img" "$work"
cp "$work/boot.img" "$root/usr/lib/grub/i386-pc/boot.img"
rm "$root/tmp/early.cfg"

say "writing the disk"
# The published image's numbers: the root is partition 1 but last on the disk, so that it can grow. In sectors of 512 bytes.
bios_start=2048 bios_size=6144 esp_start=8192 esp_size=253952 root_start=262144 root_size=6027264
truncate -s 3G "$disk"
sfdisk --quiet "$disk" <<TABLE
label: gpt
1 : start=$root_start, size=$root_size, uuid=$root_part, type=4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709
14 : start=$bios_start, size=$bios_size, type=21686148-6449-6E6F-744E-656564454649
15 : start=$esp_start, size=$esp_size, uuid=$esp_part, type=C12A7328-F81F-11D2-BA4B-00A0C93EC93B
TABLE

poke() { dd of="$disk" conv=notrunc status=none "$@"; }
# What grub-bios-setup would do on a device: the boot sector knows where the core image begins (bytes 92 to 99), and
# the core image's first sector knows where its second one is (bytes 500 to 507).
poke if="$work/boot.img" bs=440 count=1
printf '\x00\x08\0\0\0\0\0\0' | poke bs=1 seek=92
poke if="$work/core.img" bs=512 seek=$bios_start
printf '\x01\x08\0\0\0\0\0\0' | poke bs=1 seek=$((bios_start * 512 + 500))

# It warns that the file goes on behind the file system, as it does.
answer=$(mkfs.vfat -F 32 -s 1 -n ESP --offset=$esp_start "$disk" $((esp_size / 2)) 2>&1) || die "mkfs.vfat: $answer"
mmd -i "$disk@@$((esp_start * 512))" ::/EFI ::/EFI/BOOT
mcopy -i "$disk@@$((esp_start * 512))" "$work/bootx64.efi" ::/EFI/BOOT/BOOTX64.EFI
mke2fs -q -t ext4 -U "$root_fs" -m 1 -d "$root" -E offset=$((root_start * 512)) "$disk" $((root_size / 2))k

say "compressing"
qemu-img convert -c -O qcow2 -o compression_type=zstd "$disk" "$work/image.qcow2"
mv "$work/image.qcow2" "$image"
say "done in $((SECONDS - started)) s, $(($(stat -c %s "$image") >> 20)) MiB"
echo "$image"
