#!/bin/bash
# The guest's clock stands still while the machine is paused or the host sleeps. The emulated hardware's does not, for it
# is the host's; this follows it. (A time server on the network would be a second opinion, and move the hardware's clock.)
while sleep 10; do
    read -r host </sys/class/rtc/rtc0/since_epoch || continue
    ahead=$((EPOCHSECONDS - host))
    # Both tell whole seconds: one of difference is none.
    if ((ahead < -1 || ahead > 1)); then
        date --set="@$host" >/dev/null
        echo "the clock was $ahead s ahead of the host's"
    fi
done
