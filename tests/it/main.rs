//! The program as its users meet it: real processes, real QEMU, a real guest, real kubectl.

mod guest;
mod identity;
mod shared;
mod stopped_vm;
mod support;
mod transcript;

mod autostart;
mod bundle;
mod command_line;
mod completion;
mod everyday;
mod faults;
mod hostile;
mod house;
mod kubeconfig;
mod licences;
mod odd_images;
mod other_guests;
mod plain_way;
mod prepared;
mod real;
mod screens;
mod several_vms;
mod story;
mod workflow;
