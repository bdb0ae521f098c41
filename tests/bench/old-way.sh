#!/bin/sh
# The old way to a k3s machine, as many a script has it: an overlay, an ISO seed, cloud-init that installs k3s in runcmd,
# and ssh and kubectl asked every second. The benchmark compares k3s-vm with it.
#
#   old-way.sh setup | start | stop     in the machine's own directory
#
# The environment says the rest: IMAGE, RELEASE (its URL as the guest sees it), ACCELERATOR and CPU as QEMU names them,
# CPUS, MEMORY, SSH_PORT, API_PORT.
set -eu

make() {
    qemu-img create -q -f qcow2 -F qcow2 -b "$IMAGE" disk.qcow2 20G
    ssh-keygen -q -t ed25519 -N '' -f id
    printf 'instance-id: old-way\nlocal-hostname: old-way\n' >meta-data
    cat >user-data <<USER_DATA
#cloud-config
ssh_authorized_keys:
  - $(cat id.pub)
write_files:
  - path: /etc/systemd/system/k3s.service
    content: |
      [Unit]
      Description=Lightweight Kubernetes
      Wants=network-online.target
      After=network-online.target
      [Install]
      WantedBy=multi-user.target
      [Service]
      Type=notify
      KillMode=process
      Delegate=yes
      LimitNOFILE=1048576
      LimitNPROC=infinity
      LimitCORE=infinity
      TasksMax=infinity
      TimeoutStartSec=0
      Restart=always
      RestartSec=5s
      ExecStartPre=-/sbin/modprobe br_netfilter
      ExecStartPre=-/sbin/modprobe overlay
      ExecStart=/usr/local/bin/k3s server
runcmd:
  - curl -sfL -o /usr/local/bin/k3s $RELEASE/k3s
  - chmod 755 /usr/local/bin/k3s
  - curl -sfL --create-dirs --output-dir /var/lib/rancher/k3s/agent/images -O $RELEASE/k3s-airgap-images-amd64.tar.zst
  - systemctl daemon-reload
  - systemctl enable --now k3s
USER_DATA
    genisoimage -quiet -output seed.iso -volid cidata -joliet -rock user-data meta-data
}

boot() {
    qemu-system-x86_64 -machine q35 -accel "$ACCELERATOR" -cpu "$CPU" -smp "$CPUS" -m "$MEMORY" \
        -drive file=disk.qcow2,if=virtio,format=qcow2,discard=unmap \
        -drive file=seed.iso,if=virtio,format=raw,readonly=on \
        -nic "user,model=virtio-net-pci,hostfwd=tcp:127.0.0.1:$SSH_PORT-:22,hostfwd=tcp:127.0.0.1:$API_PORT-:6443" \
        -device virtio-rng-pci -display none -serial file:console.log -pidfile qemu.pid -daemonize
}

guest() {
    ssh -i id -p "$SSH_PORT" -o BatchMode=yes -o ConnectTimeout=5 -o LogLevel=ERROR \
        -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null debian@127.0.0.1 "$@"
}

wait_until_ready() {
    until guest sudo cat /etc/rancher/k3s/k3s.yaml >kubeconfig 2>/dev/null; do sleep 1; done
    sed -i "s/127.0.0.1:6443/127.0.0.1:$API_PORT/" kubeconfig
    until kubectl --kubeconfig kubeconfig --request-timeout 5s get nodes 2>/dev/null | grep -q ' Ready '; do
        sleep 1
    done
}

case $1 in
    setup)
        make
        boot
        wait_until_ready
        ;;
    start)
        boot
        wait_until_ready
        ;;
    stop)
        guest sudo poweroff || true # the connection may end before the answer comes
        while [ -e qemu.pid ]; do sleep 1; done
        ;;
    guest)
        shift
        guest "$@"
        ;;
esac
