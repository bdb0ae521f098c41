#!/bin/sh
# Gives the root file system the whole disk: the partition that it is on by sfdisk or growpart, and then the file system
# itself by systemd-growfs(8), which knows ext4, xfs and btrfs.
set -eu
PATH=$PATH:/usr/sbin:/sbin

fail() {
    echo "$*" >&2
    exit 1
}

# The block device under /: mountinfo has its number, and for btrfs, whose number is not a device's, its path.
source=
while read -r _ _ device _ point rest; do
    [ "$point" != / ] || { number=$device && rest=${rest#* - } && rest=${rest#* } && source=${rest%% *}; }
done </proc/self/mountinfo
if [ -e "/sys/dev/block/$number" ]; then
    cd -P "/sys/dev/block/$number"
else
    cd -P "/sys/class/block/${source##*/}" 2>/dev/null || fail "the root file system is on $source, which is not a partition"
fi
part=${PWD##*/}
if [ -e partition ]; then
    read -r number <partition
    read -r first <start
    read -r length <size
    cd -P ..
    disk=${PWD##*/}
    read -r whole <size
    # In sectors of 512 bytes. Less than a MiB is for the partition table's copy and alignment.
    if [ $((whole - first - length)) -ge 2048 ]; then
        if command -v sfdisk >/dev/null && command -v partx >/dev/null; then
            echo ", +" | sfdisk --quiet --no-reread --no-tell-kernel --force -N "$number" "/dev/$disk" >/dev/null
            partx --update --nr "$number" "/dev/$disk"
        elif command -v growpart >/dev/null; then
            growpart "/dev/$disk" "$number"
        else
            fail "the image has neither sfdisk nor growpart to grow partition $number of $disk"
        fi
    fi
elif [ -d slaves ] && [ -n "$(ls slaves)" ]; then
    fail "the root file system is on $part, which is a volume of LVM, LUKS or RAID"
fi
growfs=/usr/lib/systemd/systemd-growfs
[ -x "$growfs" ] || growfs=/lib/systemd/systemd-growfs
if [ -x "$growfs" ]; then
    "$growfs" /
else
    resize2fs "/dev/$part"
fi
