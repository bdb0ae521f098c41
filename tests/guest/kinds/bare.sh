# shellcheck shell=bash disable=SC2034
# A minimal image: no cloud-init, no python, no growpart, nothing for people at a prompt, and nothing that brings the
# network up.
packages=(e2fsprogs busybox)
