#!/usr/bin/env bash
# Builds the real guests that the tests boot, from Debian packages and laid out and configured like published images
# (partitions, loader, kernel, no keys, no passwords, no machine id), because what the tests say about the product is
# worth as much as these images are like those that users get. Their initrds have only the drivers of QEMU's machine.
#
#   build.sh OUT_DIR [KIND]  builds unless it is there already; prints the image's path (progress goes to stderr)
#   build.sh --packages      prints the Debian packages that the host must have
#   build.sh --kinds         prints the kinds of guests; without one, "debian" is built
#
# Each kind is a file in kinds/, which says whom it stands for, sets what is listed below, and may define `configure`.
#
# DEBIAN_MIRROR names the mirror; without it, the one that the host's own apt uses for Debian.
# Nothing needs root or a loop device: file systems are written straight into the disk file at their offset. Without
# root the script runs again as root of a user namespace (needs a range in /etc/subuid), then the path is the same.
set -euo pipefail

host_packages=(mmdebstrap debian-archive-keyring qemu-utils e2fsprogs dosfstools mtools fdisk uidmap xfsprogs)
host_commands=(mmdebstrap qemu-img mke2fs mkfs.vfat mcopy sfdisk newuidmap mkfs.xfs)
# What no kind does without: init, boot loader for BIOS and UEFI, what a node needs, and a container runtime for the k3s
# stand-in, which has none in itself. The kernel is the one that has 9p.
guest_packages=(
  linux-image-amd64 zstd kmod systemd-sysv udev dbus grub-common grub-pc-bin grub-efi-amd64-bin
  openssh-server iproute2 iptables ca-certificates containerd
)

# What a kind may set.
release=trixie
name=           # the image's, without the hash
packages=()     # beside those of all
initrd=initramfs-tools
root_type=ext4  # or xfs
root_options=rw,discard,errors=remount-ro
declare -A number=([root]=1 [bios]=14 [esp]=15) # of the partitions; with [boot] there is a /boot of its own
configure() { :; } # what else is to be changed below $root, once all packages are installed
PATH=$PATH:/usr/sbin:/sbin

say() { echo "guest image: $*" >&2; }
die() { say "$*"; exit 1; }

here=$(dirname "$(realpath "$0")")
case ${1-} in
  --packages) echo "${host_packages[@]}"; exit ;;
  --kinds) basename -s .sh "$here"/kinds/*.sh; exit ;;
  '' | -*) die "usage: build.sh OUT_DIR [KIND] | --packages | --kinds" ;;
esac
for command in "${host_commands[@]}"; do
  command -v "$command" >/dev/null || die "$command is missing: apt-get install --no-install-recommends ${host_packages[*]}"
done
kind=${2:-debian}
[[ -e $here/kinds/$kind.sh ]] || die "there is no kind $kind, only: $(basename -s .sh "$here"/kinds/*.sh | xargs)"
# shellcheck source=kinds/debian.sh
source "$here/kinds/$kind.sh"

# The scripts are the recipe, so their hash is the key of what they made.
mkdir -p "$1"
out=$(realpath "$1")
image=$out/${name:-$kind-$release}-$(cat "$0" "$here/kinds/$kind.sh" | sha256sum | cut -c1-12).qcow2
exec 9>"$out/.$kind.lock"
flock 9 # two builders at once: the second one finds the first one's image
if [[ -e $image ]]; then
  echo "$image"
  exit
fi

if ((EUID != 0)); then
  exec unshare --map-root-user --map-auto -- "$BASH" "$0" "$out" "$kind" 9>&- # the new process takes the lock itself
fi

mirror=${DEBIAN_MIRROR:-$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Origin: Debian' 'Label: Debian' | sed -n 1p)}
[[ $mirror ]] || die "apt knows no Debian mirror here: set DEBIAN_MIRROR (or run apt-get update first)"

rm -rf --one-file-system "$out/.$kind".?????? # of a run that was killed; the lock excludes others
work=$(mktemp -d "$out/.$kind.XXXXXX")
trap 'rm -rf --one-file-system "$work"' EXIT
root=$work/root disk=$work/disk.raw
declare -A fs part
for role in "${!number[@]}"; do
  fs[$role]=$(</proc/sys/kernel/random/uuid)
  part[$role]=$(</proc/sys/kernel/random/uuid)
done

say "$kind: installing packages of $release from $mirror"
started=$SECONDS
drivers="virtio_pci virtio_blk $root_type"
case $initrd in
  initramfs-tools)
    before='mkdir -p "$1"/etc/initramfs-tools/conf.d "$1"/usr/share/initramfs-tools/modules.d
      echo MODULES=list >"$1"/etc/initramfs-tools/conf.d/guest
      printf "%s\n" '$drivers' >"$1"/usr/share/initramfs-tools/modules.d/guest' ;;
  dracut)
    before='mkdir -p "$1"/etc/dracut.conf.d
      printf "%s\n" hostonly=no "drivers=\" '$drivers' \"" >"$1"/etc/dracut.conf.d/guest.conf' ;;
esac
# As root of whichever namespace this is, "unshare" only adds a mount and a process namespace: nothing stays mounted.
mmdebstrap --quiet --mode=unshare --variant=minbase --include="${guest_packages[*]} $initrd ${packages[*]}" \
  --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-exclude=/usr/share/locale/*' \
  --setup-hook="$before" "$release" "$root" "$mirror" >&2
say "packages installed ($((SECONDS - started)) s)"

# What would make two machines of one image the same, and what came from the host that built it.
: >"$root/etc/machine-id"
rm -f "$root"/etc/ssh/ssh_host_* "$root/var/lib/dbus/machine-id" "$root/etc/resolv.conf"
echo localhost >"$root/etc/hostname"
[[ ! -e $root/usr/lib/systemd/systemd-resolved ]] || ln -s ../run/systemd/resolve/stub-resolv.conf "$root/etc/resolv.conf"
# The stand-in starts it when somebody asks; a guest that nobody asks boots without it.
ln -sf /dev/null "$root/etc/systemd/system/containerd.service"
mkdir -p "$root/boot/efi"
{
  echo "PARTUUID=${part[root]} / $root_type $root_options 0 1"
  [[ ! ${number[boot]-} ]] || echo "PARTUUID=${part[boot]} /boot ext4 defaults 0 2"
  echo "PARTUUID=${part[esp]} /boot/efi vfat defaults 0 0"
} >"$root/etc/fstab"
configure

# update-grub wants to look at real disks; a fixed configuration through Debian's /vmlinuz links says the same.
mkdir -p "$root/boot/grub"
cat >"$root/boot/grub/grub.cfg" <<GRUB
serial --unit=0 --speed=115200
terminal_output console serial
linux /vmlinuz root=PARTUUID=${part[root]} ro console=tty0 console=ttyS0,115200 consoleblank=0
initrd /initrd.img
boot
GRUB
# The loader finds its files by UUID, not by number: other disks may be attached, and UEFI counts in its own order.
loaders=root prefix=/boot/grub
if [[ ${number[boot]-} ]]; then
  loaders=boot prefix=/grub
  for link in vmlinuz initrd.img; do
    ln -sf "$(basename "$(readlink "$root/$link")")" "$root/boot/$link"
  done
fi
cat >"$root/tmp/early.cfg" <<GRUB
search --no-floppy --fs-uuid --set=root ${fs[$loaders]}
set prefix=(\$root)$prefix
configfile \$prefix/grub.cfg
GRUB
modules=(normal configfile search search_fs_uuid part_gpt ext2 fat linux gzio boot serial terminal)
chroot "$root" grub-mkimage -O i386-pc -p "$prefix" -c /tmp/early.cfg -o /tmp/core.img biosdisk "${modules[@]}"
chroot "$root" grub-mkimage -O x86_64-efi -p "$prefix" -c /tmp/early.cfg -o /tmp/bootx64.efi \
  efi_gop efi_uga "${modules[@]}"
mv "$root"/tmp/{core.img,bootx64.efi} "$work"
cp "$root/usr/lib/grub/i386-pc/boot.img" "$work"
rm "$root/tmp/early.cfg"
if [[ ${number[boot]-} ]]; then
  mv "$root/boot" "$work/boot"
  mkdir "$root/boot"
fi

say "writing the disk"
# As in the published images: the root is last on the disk, whatever its number, so that it can grow. In sectors of 512
# bytes.
declare -A start=([bios]=2048 [esp]=8192 [root]=262144) size=([bios]=6144 [esp]=253952 [boot]=524288 [root]=6027264)
declare -A type=(
  [bios]=21686148-6449-6E6F-744E-656564454649 [esp]=C12A7328-F81F-11D2-BA4B-00A0C93EC93B
  [boot]=BC13C2FF-59E6-4262-A352-B275FD6F7172 [root]=4F68BCE3-E8CD-4DB1-96E7-FBCAF984B709
)
[[ ! ${number[boot]-} ]] || start[boot]=${start[root]} start[root]=$((start[root] + size[boot]))
truncate -s $(((start[root] + size[root] + 2048) * 512)) "$disk"
{
  echo "label: gpt"
  for role in "${!number[@]}"; do
    echo "${number[$role]} : start=${start[$role]}, size=${size[$role]}, uuid=${part[$role]}, type=${type[$role]}"
  done
} | sfdisk --quiet "$disk"

poke() { dd of="$disk" conv=notrunc status=none "$@"; }
# What grub-bios-setup would do on a device: the boot sector knows where the core image begins (bytes 92 to 99), and
# the core image's first sector knows where its second one is (bytes 500 to 507).
poke if="$work/boot.img" bs=440 count=1
printf '\x00\x08\0\0\0\0\0\0' | poke bs=1 seek=92
poke if="$work/core.img" bs=512 seek="${start[bios]}"
printf '\x01\x08\0\0\0\0\0\0' | poke bs=1 seek=$((start[bios] * 512 + 500))

# It warns that the file goes on behind the file system, as it does.
answer=$(mkfs.vfat -F 32 -s 1 -n ESP --offset="${start[esp]}" "$disk" $((size[esp] / 2)) 2>&1) || die "mkfs.vfat: $answer"
mmd -i "$disk@@$((start[esp] * 512))" ::/EFI ::/EFI/BOOT
mcopy -i "$disk@@$((start[esp] * 512))" "$work/bootx64.efi" ::/EFI/BOOT/BOOTX64.EFI

# prototype TREE: its files as mkfs.xfs wants to be told of them. A $ ends a directory; device nodes are the kernel's to
# make, and names with spaces cannot be said.
prototype() {
  find "$1" -printf '%d %y %m %U %G %f %p %l\n' | awk '
    function about(kind) {
      special = length($3) > 3 ? substr($3, 1, 1) : 0
      return kind (special >= 4 ? "u" : "-") (special % 4 >= 2 ? "g" : "-") substr("00" $3, length($3)) " " $4 " " $5
    }
    $1 == 0 { print "-\n0 0\n" about("d"); next }
    { for (; open > $1 - 1; open--) print "$" }
    $2 == "d" { print $6, about("d"); open = $1 }
    $2 == "f" { print $6, about("-"), $7 }
    $2 == "l" { print $6, about("l"), $8 }
    END { for (; open >= 0; open--) print "$" }'
}

# write_fs ROLE TYPE TREE: the partition's file system, with the tree's files in it.
write_fs() {
  local from=$((start[$1] * 512)) kib=$((size[$1] / 2))
  case $2 in
    ext4) mke2fs -q -t ext4 -U "${fs[$1]}" -m 1 -d "$3" -E offset=$from "$disk" ${kib}k ;;
    xfs)
      # It writes at no offset.
      prototype "$3" >"$work/prototype"
      mkfs.xfs -q -m uuid="${fs[$1]}" -p "$work/prototype" -d "file,name=$work/xfs,size=${kib}k"
      poke if="$work/xfs" bs=1M seek=$from oflag=seek_bytes conv=notrunc,sparse ;;
  esac
}
[[ ! ${number[boot]-} ]] || write_fs boot ext4 "$work/boot"
write_fs root "$root_type" "$root"

say "compressing"
qemu-img convert -c -O qcow2 -o compression_type=zstd "$disk" "$work/image.qcow2"
mv "$work/image.qcow2" "$image"
say "$kind: done in $((SECONDS - started)) s, $(($(stat -c %s "$image") >> 20)) MiB"
echo "$image"
