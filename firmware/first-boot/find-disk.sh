#!/bin/sh
# disk NAME: prints the device of the disk that the host has attached by that name. udev's links come later in a boot.
tries=0
while [ $((tries += 1)) -le 100 ]; do
    for serial in /sys/block/vd*/serial; do
        name=
        # It has no line's end.
        read -r name <"$serial" || true
        if [ "$name" = "$1" ]; then
            serial=${serial%/serial}
            echo "/dev/${serial##*/}"
            exit 0
        fi
    done
    sleep 0.1
done
exit 1
