//! The program as its users meet it: real processes, real QEMU, a real guest, real kubectl.

mod support;
mod telling;

mod command_line;
mod desk;
mod everyday;
mod faults;
mod hostile;
mod house;
mod licences;
mod prepared;
mod story;
