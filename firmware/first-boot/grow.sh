#!/bin/sh
# Gives the root file system the whole disk. cloud-init knows more layouts, and takes seconds to know them.
set -eu
root=$(findmnt --noheadings --output SOURCE --nofsroot /)
type=$(findmnt --noheadings --output FSTYPE /)
part=/sys/class/block/${root##*/}
if [ -e "$part/partition" ] && [ "$type" = ext4 ]; then
    read -r number <"$part/partition"
    disk=$(readlink -f "$part/..")
    # It ends with 1 where there is nothing to grow.
    growpart "/dev/${disk##*/}" "$number" || [ $? -eq 1 ]
    resize2fs "$root"
else
    cloud-init single --name growpart --frequency always
    cloud-init single --name resizefs --frequency always
fi
